"""What a sandbox notices of another that takes all it can: its `exec` of `true`, in the QEMU node."""

from __future__ import annotations

import shlex
import time
from contextlib import contextmanager
from typing import Iterator

from bed.cluster import Cluster
from bed.manifests import sandbox
from bench.figures import Figure, median

ROUNDS, EXECS = 4, 12
VCPUS = 2  # of the one that spins: as many as the node has processors for programs
THREADS = 100  # that a hostile VMM would start
SHAPE = {"cpu": 1, "memory": "96Mi"}
SETTLE_SECONDS = 1
EXEC = "dormouse-agent ctl exec default/neighbour -- true"
SPIN = "while :; do :; done"


def execs(cluster: Cluster) -> list[float]:
    """Milliseconds of each, one after the other, by the node's clock."""
    loop = f"for n in $(seq {EXECS}); do b=$(date +%s%N); {EXEC}; echo $((($(date +%s%N) - b) / 1000)); done"
    return [int(line) / 1e3 for line in cluster.node.output(loop, seconds=300).split()]


@contextmanager
def running(cluster: Cluster, command: str) -> Iterator[None]:
    """On the node, with all that it forks, until the body has ended."""
    leader = cluster.node.output(f"setsid sh -c {shlex.quote(command)} </dev/null >/dev/null 2>&1 & echo $!").strip()
    time.sleep(SETTLE_SECONDS)
    try:
        yield
    finally:
        cluster.node.run(f"kill -9 -- -{leader}")


def group_of(cluster: Cluster, name: str) -> str:
    return "/sys/fs/cgroup" + cluster.node.output(f"cut -d: -f3 /proc/{cluster.vmm_pid(name)}/cgroup").strip()


def spinning(cluster: Cluster) -> list[Figure]:
    """The idle node, a guest that spins and a VMM that does alternate."""
    shapes = {"neighbour": SHAPE, "spinner": {**SHAPE, "cpu": VCPUS}}
    cluster.apply(*(sandbox(name, resources=shape) for name, shape in shapes.items()))
    cluster.wait_ready(*shapes)
    group = group_of(cluster, "spinner")
    room = int(cluster.node.read(f"{group}/pids.max")) - int(cluster.node.read(f"{group}/pids.current"))
    threads = min(THREADS, room - 2)  # what starts them is one
    loops = f"for n in $(seq {VCPUS}); do {SPIN} & done; wait"
    in_guest = f"exec dormouse-agent ctl exec default/spinner -- sh -c {shlex.quote(loops)}"
    # In the place of a VMM that was taken over: its threads count and weigh the same.
    in_vmm = f"echo $$ >{group}/cgroup.procs; for n in $(seq {threads}); do ({SPIN}) & done; wait"
    execs(cluster)  # warms up
    idle, guest, vmm = [], [], []
    for _ in range(ROUNDS):
        idle += execs(cluster)
        with running(cluster, in_guest):
            guest += execs(cluster)
        with running(cluster, in_vmm):
            vmm += execs(cluster)
    cluster.delete(*shapes)
    cluster.wait_gone(*shapes)
    return [
        Figure.of("neighbour's exec of true: idle node", median(idle), "ms"),
        Figure.of(f"neighbour's exec of true: beside a guest that spins {VCPUS} vCPUs", median(guest) / median(idle), "x"),
        Figure.of(f"neighbour's exec of true: beside a VMM that spins {threads} threads", median(vmm) / median(idle), "x"),
        Figure.of("neighbour's exec of true: the slowest beside that VMM", max(vmm), "ms"),
    ]  # fmt: skip


PARTS = (spinning,)
