"""Suspend and wake on the real VMM in the QEMU node, beside the stock snapshot and restore driven by hand."""

from __future__ import annotations

import re

from bed.cluster import Cluster
from bed.manifests import sandbox
from bench.by_hand import by_hand
from bench.figures import Figure, median

ROUNDS = 3
# MiB of memory: how many times faster than the stock way a suspend with little to write and a wake must be.
SIZES = {512: (10, 5), 2048: (30, 18)}


def milliseconds(duration: str) -> float:
    return float(re.fullmatch(r"(\d+)ms", duration)[1])


def sleep_and_wake(cluster: Cluster, name: str) -> dict[str, float]:
    cluster.wish("Suspended", name)
    asleep = cluster.wait_phase(name, "Suspended")["status"]
    cluster.wish("Running", name)
    awake = cluster.wait_phase(name, "Running")["status"]
    return {
        "pause": milliseconds(asleep["snapshot"]["pauseWindow"]),
        "written": asleep["snapshot"]["writtenBytes"] / (1 << 20),
        "wake": milliseconds(awake["vm"]["bootToReady"]),
    }


def measure(cluster: Cluster) -> list[Figure]:
    figures, wakes = [], {}
    for size, (faster_suspend, faster_wake) in SIZES.items():
        name = f"sleep-{size}"
        cluster.apply(sandbox(name, resources={"cpu": 1, "memory": f"{size}Mi"}))
        cluster.wait_ready(name)
        cold = milliseconds(cluster.get(name)["status"]["vm"]["bootToReady"])
        first = sleep_and_wake(cluster, name)
        rounds, stock = [], []
        for _ in range(ROUNDS):  # alternating, so that a slow minute slows both
            rounds.append(sleep_and_wake(cluster, name))
            stock.append(by_hand(cluster, size << 20, "--snapshot"))
        cluster.delete(name)
        cluster.wait_gone(name)
        ours = {part: median([each[part] for each in rounds]) for part in rounds[0]}
        stock_suspend = median([each["pause"] + each["snapshot"] for each in stock])
        stock_wake = median([each["restore"] for each in stock])
        wakes[size] = ours["wake"]
        figures += [
            Figure.of(f"suspend, {size} MiB: first, pause to commit", first["pause"], "ms"),
            Figure.of(f"suspend, {size} MiB: written at first", first["written"], "MiB"),
            Figure.of(f"suspend, {size} MiB: pause to commit", ours["pause"], "ms"),
            Figure.of(f"suspend, {size} MiB: written", ours["written"], "MiB"),
            Figure.of(f"suspend, {size} MiB: stock snapshot, no fsync", stock_suspend, "ms"),
            Figure.of(f"suspend, {size} MiB: against stock", stock_suspend / ours["pause"], "x", f">= {faster_suspend}"),
            Figure.of(f"wake, {size} MiB: VMM start to guest", ours["wake"], "ms"),
            Figure.of(f"wake, {size} MiB: stock Copy restore", stock_wake, "ms"),
            Figure.of(f"wake, {size} MiB: against stock", stock_wake / ours["wake"], "x", f">= {faster_wake}"),
            Figure.of(f"wake, {size} MiB: against a cold boot", cold / ours["wake"], "x"),
        ]
    small, large = min(wakes), max(wakes)
    figures.append(Figure.of(f"wake at {large} MiB against {small} MiB", wakes[large] / wakes[small], "ratio", "<= 1.25"))
    return figures
