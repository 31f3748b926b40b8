"""Guest memory of fake VMs, written and read from the node as their guests would (on_node/guest-memory)."""

from __future__ import annotations

from typing import Mapping, Sequence

from bed.cluster import Cluster

MIB = 64
PROGRAM = "/opt/dormouse/bed/guest-memory"


def write(cluster: Cluster, pids: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, str]:
    """Marks each with its number; digests by name, for `sums`."""
    words = [f"{pids[name]}={number}" for name, number in numbers.items()]
    return _said(cluster, ["write", str(MIB), *words], {pids[name]: name for name in numbers})


def sums(cluster: Cluster, pids: Mapping[str, int], names: Sequence[str]) -> dict[str, str]:
    return _said(cluster, ["sum", str(MIB), *(str(pids[name]) for name in names)], {pids[name]: name for name in names})


def _said(cluster: Cluster, words: list[str], names: Mapping[int, str]) -> dict[str, str]:
    lines = cluster.node.output([PROGRAM, *words], seconds=120).splitlines()
    return {names[int(pid)]: digest for pid, digest in (line.split() for line in lines)}
