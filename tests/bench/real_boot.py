"""Starts on the real VMM in the QEMU node, and the same boot driven by hand beside them."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Iterator

from bed.cluster import Cluster
from bed.manifests import object_path, sandbox, SANDBOXES
from bench import clones, egress, neighbours, sleep
from bench.by_hand import by_hand
from bench.figures import Figure, median
from bench.starts import Watch
from bench.steps import start_of

ROUNDS = 5
MEMORY = 128 << 20


def measure(cluster: Cluster) -> list[Figure]:
    """Alternates the two sides, so that a slow minute of the machine slows both."""
    watch = Watch(cluster.api.admin)
    rounds, hand = [], []
    try:
        one(cluster, watch, "warm-up")
        for number in range(ROUNDS):
            rounds.append(one(cluster, watch, f"bench-{number}"))
            hand.append(by_hand(cluster, MEMORY))
    finally:
        watch.stop()
    figures = [
        Figure.of(f"start: {part}", median([each[part] for each in rounds]), "ms", target)
        for part, target in (
            ("apply to Ready", ""), ("API", ""), ("placement", ""), ("agent", "<= 60"), ("VMM", ""), ("guest", ""), ("guest configured", ""),
        )
    ]  # fmt: skip
    booted = [sum(each.values()) for each in hand]
    figures.append(Figure.of("start: the same boot by hand", median(booted), "ms"))
    figures.append(
        Figure.of(
            "start: VMM and guest against by hand",
            median([each["VMM"] + each["guest"] for each in rounds]) / median(booted), "ratio",
        )
    )  # fmt: skip
    figures.append(guest_agent_memory(cluster))
    for name in sorted(rounds[0]["detail"]):
        value = median([each["detail"].get(name, 0.0) for each in rounds])
        figures.append(Figure.of(f"start, step {name}", value, "ms"))
    return figures


def one(cluster: Cluster, watch: Watch, name: str) -> dict:
    began = time.monotonic()
    cluster.api.expect(
        cluster.api.admin.create(object_path(SANDBOXES), sandbox(name, bootSnapshot="Never")), "create a sandbox"
    )
    created = time.monotonic()
    watch.wait_ready([name], 180)
    start = start_of(cluster.node.read(cluster.layout.log), f"default/{name}")
    cluster.delete(name)
    cluster.wait_gone(name)
    whole = (watch.ready[name] - began) * 1e3
    return {
        "apply to Ready": whole,
        "API": (created - began) * 1e3,
        "placement": (watch.placed[name] - created) * 1e3,
        "agent": start.agent,
        "VMM": start.vmm,
        "guest": start.guest,
        "guest configured": start.configured,
        "detail": start.detail,
    }


def guest_agent_memory(cluster: Cluster) -> Figure:
    cluster.apply(sandbox("memory"))
    cluster.wait_ready("memory")
    said = cluster.exec("memory", ["cat", "/proc/1/status"]).stdout
    cluster.delete("memory")
    cluster.wait_gone("memory")
    rss = next(line for line in said.splitlines() if line.startswith("VmRSS"))
    return Figure.of("resident memory: guest agent", int(rss.split()[1]) / 1024, "MiB")


def run(folder: Path) -> Iterator[list[Figure]]:
    """Each part's figures when it has them; one that fails is told, and costs only its own."""
    on_node = Path(__file__).parent / "on_node"
    many = ["--cpu-overcommit=16"]  # twenty clones on two processors
    with Cluster(
        folder, agent_flags=many, extra_parts={"bench": on_node}, memory_mib=10240, life_seconds=4800
    ) as cluster:
        if not cluster.vmm.real:
            print("bench: no real VMM here: its figures are left out")
            return
        for part in (measure, *egress.PARTS, *clones.PARTS, *sleep.PARTS, *neighbours.PARTS):
            try:
                yield part(cluster)
            except Exception:
                traceback.print_exc()
                yield [Figure(f"{part.__module__}.{part.__name__}: failed", 0, "", "", False)]
