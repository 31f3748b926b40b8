"""Suspend and wake on the real VMM in the QEMU node, beside the stock snapshot and restore driven by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from bed.cluster import Cluster
from bed.manifests import sandbox
from bench.by_hand import by_hand
from bench.figures import Figure, median
from bench.starts import Watch
from bench.steps import steps_of

MIB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """How many times faster than the stock way a suspend with little to write, and a wake, must be."""

    mib: int
    vcpus: int
    rounds: int
    suspend: int
    wake: int

    def __str__(self) -> str:
        return f"{self.mib} MiB" + (f", {self.vcpus} vCPUs" if self.vcpus > 1 else "")


SHAPES = (Shape(512, 1, 3, 10, 5), Shape(2048, 1, 3, 30, 18), Shape(4096, 2, 2, 50, 25))
DIVERGED = (16, 64, 256)
WAKES = 7  # of each: one alone takes half as long again, or not
RAM = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .*/memory\n(?:.*\n)*?Anonymous: +(\d+) kB", re.MULTILINE)


def milliseconds(duration: str) -> float:
    return float(re.fullmatch(r"(\d+)ms", duration)[1])


def answered_after(cluster: Cluster, name: str) -> float:
    """Milliseconds from the start of its last VMM to its guest's first answer, which the thaw follows at once."""
    last = {step.name: step for step in steps_of(cluster.node.read(cluster.layout.log), f"default/{name}")}
    return (last["guest.thaw"].began - last["vmm.launch"].began) * 1e3


def sleep_and_wake(cluster: Cluster, name: str) -> dict[str, float]:
    diverged = diverged_mib(cluster, name)
    asleep = cluster.bring(name, "Suspended")["status"]
    cluster.bring(name, "Running")
    return {
        "pause": milliseconds(asleep["snapshot"]["pauseWindow"]),
        "written": asleep["snapshot"]["writtenBytes"] / MIB,
        "diverged": diverged,
        "wake": answered_after(cluster, name),
    }


def diverged_mib(cluster: Cluster, name: str) -> float:
    """What of its RAM is no longer the page cache's, as the kernel counts it; 0 after a boot, where all is anonymous."""
    found = RAM.search(cluster.node.read(f"/proc/{cluster.vmm_pid(name)}/smaps"))
    return int(found[1]) / 1024 if found else 0.0


def sleeps(cluster: Cluster) -> list[Figure]:
    # The first of all finds memory and disk that the emulator has never touched.
    measure_shape(cluster, replace(SHAPES[0], rounds=1))
    return [figure for shape in SHAPES for figure in measure_shape(cluster, shape)]


def booted(cluster: Cluster, shape: Shape) -> str:
    """The name of a sandbox of that shape."""
    name = f"sleep-{shape.mib}"
    resources = {"cpu": shape.vcpus, "memory": f"{shape.mib}Mi"}
    cluster.apply(sandbox(name, resources=resources, bootSnapshot="Never"))
    cluster.wait_ready(name)
    return name


def measure_shape(cluster: Cluster, shape: Shape) -> list[Figure]:
    name = booted(cluster, shape)
    first = sleep_and_wake(cluster, name)
    rounds, stock = [], []
    for _ in range(shape.rounds):  # alternating, so that a slow minute slows both
        rounds.append(sleep_and_wake(cluster, name))
        stock.append(by_hand(cluster, shape.mib << 20, "--snapshot", vcpus=shape.vcpus))
    cluster.delete(name)
    cluster.wait_gone(name)
    ours = {part: median([each[part] for each in rounds]) for part in rounds[0]}
    stock_suspend = median([each["pause"] + each["snapshot"] for each in stock])
    stock_wake = median([each["restore"] for each in stock])
    figures = [
        Figure.of(f"suspend, {shape}: first, pause to commit", first["pause"], "ms"),
        Figure.of(f"suspend, {shape}: written at first", first["written"], "MiB"),
        Figure.of(f"suspend, {shape}: pause to commit", ours["pause"], "ms"),
        Figure.of(f"suspend, {shape}: written", ours["written"], "MiB"),
        Figure.of(f"suspend, {shape}: stock snapshot, no fsync", stock_suspend, "ms"),
        Figure.of(f"suspend, {shape}: against stock", stock_suspend / ours["pause"], "x", f">= {shape.suspend}"),
        Figure.of(f"wake, {shape}: VMM start to guest", ours["wake"], "ms"),
        Figure.of(f"wake, {shape}: stock Copy restore", stock_wake, "ms"),
        Figure.of(f"wake, {shape}: against stock", stock_wake / ours["wake"], "x", f">= {shape.wake}"),
    ]
    if shape.mib == SHAPES[0].mib:
        figures.append(Figure.of("first suspend of a booted guest: against stock", stock_suspend / first["pause"], "x", ">= 3"))
    return figures


def wakes_by_memory(cluster: Cluster) -> list[Figure]:
    """The smallest and the largest shape, alternating: both wake within the same seconds."""
    shapes = (SHAPES[0], SHAPES[-1])
    names = [booted(cluster, shape) for shape in shapes]
    for name in names:
        sleep_and_wake(cluster, name)  # the first of each dumps all that its boot has touched
    wakes: list[list[float]] = [[], []]
    for _ in range(WAKES):
        for name, into in zip(names, wakes):
            into.append(sleep_and_wake(cluster, name)["wake"])
    cluster.delete(*names)
    cluster.wait_gone(*names)
    small, large = map(median, wakes)
    return [Figure.of(f"wake, {shapes[1]} against {shapes[0]}", large / small, "ratio", "<= 1.25")]


def status_writes(cluster: Cluster) -> list[Figure]:
    """The most that a suspend or a wake took."""
    name = "told"
    cluster.apply(sandbox(name, resources={"cpu": 1, "memory": "128Mi"}, bootSnapshot="Never"))
    cluster.wait_ready(name)
    watch = Watch(cluster.api.admin)
    try:
        counts = [0]
        for mode in ("Suspended", "Running") * 2:
            counts.append(watch.status_writes(cluster.bring(name, mode)))
    finally:
        watch.stop()
    cluster.delete(name)
    cluster.wait_gone(name)
    most = max(after - before for before, after in pairwise(counts))
    return [Figure.of("status writes of a transition", most, "writes", "<= 3")]


def more_diverged(cluster: Cluster) -> list[Figure]:
    """Suspends with more to write, each beside dd of as many bytes with an fsync into the same file system."""
    name = "diverged"  # its /dev/shm is half of its memory
    cluster.apply(sandbox(name, resources={"cpu": 1, "memory": "1Gi"}, bootSnapshot="Never"))
    cluster.wait_ready(name)
    sleep_and_wake(cluster, name)
    figures = []
    for mib in DIVERGED:
        page = "$(head -c 4000 /dev/zero | tr '\\0' x)"  # tr of all of it would take minutes
        cluster.exec(name, ["sh", "-c", f'yes "{page}" | head -c {mib << 20} >/dev/shm/noise'], seconds=240)
        once = sleep_and_wake(cluster, name)
        cluster.exec(name, ["rm", "/dev/shm/noise"])
        dd = copied(cluster, round(once["written"]))
        figures += [
            Figure.of(f"suspend, {mib} MiB diverged: pause to commit", once["pause"], "ms"),
            Figure.of(f"suspend, {mib} MiB diverged: for each MiB written", once["pause"] / once["written"], "ms"),
            Figure.of(f"suspend, {mib} MiB diverged: against dd", once["pause"] / dd, "ratio", "<= 1.5"),
            # What the guest does between the look at its VMM and its freeze is little of so much.
            Figure.of(f"suspend, {mib} MiB diverged: written against diverged", once["written"] / once["diverged"], "ratio", "<= 1.2"),
        ]
    cluster.delete(name)
    cluster.wait_gone(name)
    return figures


def copied(cluster: Cluster, mib: int) -> float:
    """Milliseconds of dd, from the page cache, with fsync."""
    source, target = "/dev/shm/bench-noise", f"{cluster.layout.state}/bench-noise"
    script = (
        f"head -c {mib}M /dev/urandom >{source}; sync; began=$(date +%s%N); "
        f"dd if={source} of={target} bs=1M conv=fsync 2>/dev/null; "
        f"echo $((($(date +%s%N) - began) / 1000)); rm {source} {target}"
    )
    return int(cluster.node.output(script, seconds=240)) / 1e3


PARTS = (status_writes, more_diverged, sleeps, wakes_by_memory)
