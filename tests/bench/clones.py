"""Clones and boot snapshots on the real VMM in the QEMU node, beside cold boots of the same shape."""

from __future__ import annotations

import re
import time

from bed.cluster import READY_SECONDS, Cluster
from bed.manifests import TEMPLATES, clone, sandbox, template
from bench.figures import Figure, median
from bench.sleep import answered_after, milliseconds
from bench.starts import Creator, Watch

SHAPE = {"cpu": 1, "memory": "512Mi"}
SMALL = {"cpu": 1, "memory": "96Mi"}  # twenty of them fit
ROUNDS = 3
MANY = 20
SETTLE_SECONDS = 8  # the guest's file system commits after five
IDLE_SECONDS = 15
PRIVATE = re.compile(r"^Private_Dirty: +(\d+) kB", re.MULTILINE)
# Bound by memory: a file in memory, copied within it, again and again; its milliseconds.
WORK = """
dd if=/dev/zero of=/dev/shm/from bs=1M count=48 2>/dev/null
now() { cut -d' ' -f1 /proc/uptime | tr -d .; }
copy() { dd if=/dev/shm/from of=/dev/shm/to bs=1M 2>/dev/null; }
copy; began=$(now); copy; copy; copy; copy; echo $((($(now) - began) * 10))
"""


def ready(cluster: Cluster, *manifests: dict) -> float:
    """Milliseconds from the first creation until the last is Ready, over one connection and by one watch: twenty that are
    asked for again and again would be slowed down by the asking.
    """
    names = [each["metadata"]["name"] for each in manifests]
    watch, creator = Watch(cluster.api.admin), Creator(cluster.api.admin)
    try:
        began = time.monotonic()
        for each in manifests:
            creator.create(each)
        watch.wait_ready(names, READY_SECONDS)
        return (max(watch.ready[name] for name in names) - began) * 1e3
    finally:
        creator.stop()
        watch.stop()


def gone(cluster: Cluster, *names: str, plural: str = "sandboxes") -> None:
    cluster.delete(*names, plural=plural)
    cluster.wait_gone(*names, plural=plural)


def second_of_a_shape(cluster: Cluster) -> list[Figure]:
    first = ready(cluster, sandbox("shape-first", resources=SHAPE))
    gone(cluster, "shape-first")
    later = []
    for number in range(ROUNDS):
        name = f"shape-{number}"
        later.append(ready(cluster, sandbox(name, resources=SHAPE)))
        assert cluster.get(name)["status"]["vm"]["startMode"] == "BootSnapshot"
        gone(cluster, name)
    return [
        Figure.of("apply to Ready, 512 MiB: the first of a shape", first, "ms"),
        Figure.of("apply to Ready, 512 MiB: later ones", median(later), "ms"),
        Figure.of("apply to Ready: later ones against the first", first / median(later), "x", ">= 5"),
    ]


def clones(cluster: Cluster) -> list[Figure]:
    """A cold boot and a clone alternate."""
    ready(cluster, sandbox("warm-source", resources=SHAPE, bootSnapshot="Never"))
    cluster.exec("warm-source", ["sh", "-c", WORK], seconds=120)
    cluster.apply(template("bench-warm", "warm-source"))
    paused = milliseconds(cluster.wait_template("bench-warm")["status"]["pauseWindow"])
    gone(cluster, "warm-source")
    cold, warm, dirty, idle, booted_work, cloned_work = [], [], [], [], [], []
    for number in range(ROUNDS):
        booted, cloned = f"cold-{number}", f"warm-{number}"
        ready(cluster, sandbox(booted, resources=SHAPE, bootSnapshot="Never"))
        cold.append(milliseconds(cluster.get(booted)["status"]["vm"]["bootToReady"]))
        ready(cluster, clone(cloned, "bench-warm"))
        warm.append(answered_after(cluster, cloned))
        dirty.append(private_dirty_mib(cluster, cloned))
        idle.append(processor_share(cluster, cloned))
        booted_work.append(work(cluster, booted))
        cloned_work.append(work(cluster, cloned))
        gone(cluster, booted, cloned)
    gone(cluster, "bench-warm", plural=TEMPLATES)
    return [
        Figure.of("template, 512 MiB: its source's pause", paused, "ms"),
        Figure.of("clone, 512 MiB: VMM start to guest", median(warm), "ms"),
        Figure.of("clone, 512 MiB: against a cold boot", median(cold) / median(warm), "x", ">= 8"),
        Figure.of("idle clone: private dirty memory", median(dirty), "MiB", "<= 4"),
        Figure.of("idle clone: share of a processor", median(idle), "%"),
        Figure.of("memory-bound work: a warm clone against a booted guest", median(booted_work) / median(cloned_work), "x", ">= 0.9"),
    ]  # fmt: skip


def private_dirty_mib(cluster: Cluster, name: str) -> float:
    rollup = cluster.node.read(f"/proc/{cluster.vmm_pid(name)}/smaps_rollup")
    return int(PRIVATE.search(rollup)[1]) / 1024


def processor_share(cluster: Cluster, name: str) -> float:
    """Percent, of the VMM and its guest, once what woke with it has settled."""

    def ticks() -> int:
        fields = cluster.node.read(f"/proc/{pid}/stat").rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])  # utime, stime: 100 a second

    pid = cluster.vmm_pid(name)
    time.sleep(SETTLE_SECONDS)
    before, began = ticks(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (ticks() - before) / (time.monotonic() - began)


def work(cluster: Cluster, name: str) -> float:
    return float(cluster.exec(name, ["sh", "-c", WORK], seconds=180).stdout)


def many(cluster: Cluster) -> list[Figure]:
    """One alone and many alternate."""
    ready(cluster, sandbox("small-source", resources=SMALL, bootSnapshot="Never"))
    cluster.apply(template("bench-small", "small-source"))
    cluster.wait_template("bench-small")
    gone(cluster, "small-source")
    one, all_of_them = [], []
    for _ in range(ROUNDS):
        for into, count in ((one, 1), (one, 1), (all_of_them, MANY)):
            time.sleep(SETTLE_SECONDS)
            names = [f"many-{number}" for number in range(count)]
            into.append(ready(cluster, *(clone(name, "bench-small") for name in names)))
            gone(cluster, *names)
    gone(cluster, "bench-small", plural=TEMPLATES)
    return [
        Figure.of(f"{MANY} clones at once: one alone, apply to Ready", median(one), "ms"),
        Figure.of(f"{MANY} clones at once: all Ready", median(all_of_them), "ms"),
        Figure.of(f"{MANY} clones at once: against one", median(all_of_them) / median(one), "x", "<= 12"),
    ]


PARTS = (second_of_a_shape, clones, many)
