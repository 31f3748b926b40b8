"""What an escaped VMM can leave behind, and how long and in how much memory the agent removes it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bed.product import program
from bench.figures import Figure

NAMES, LEVELS = 1_000_000, 100_000


def run(folder: Path) -> list[Figure]:
    # A VMM's directory is a tmpfs. On a disk it takes minutes to make a million names.
    if os.access("/dev/shm", os.W_OK):
        folder = Path("/dev/shm/dormouse-bench")
    folder.mkdir(parents=True)
    try:
        seconds, kib = remove(folder, "wide", NAMES)
        deep_seconds, deep_kib = remove(folder, "deep", LEVELS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    name = f"removing a VMM directory with {NAMES:,} names"
    deep = f"removing {LEVELS:,} directories in each other"
    return [
        Figure.of(name, seconds, "s", "<= 30"),
        Figure.of(f"{name}: more resident memory", kib / 1024, "MiB", "<= 4"),
        Figure.of(deep, deep_seconds, "s"),
        Figure.of(f"{deep}: more resident memory", deep_kib / 1024, "MiB", "<= 4"),
    ]


def remove(folder: Path, shape: str, count: int) -> tuple[float, float]:
    said = subprocess.run(
        [program("bench-remove-tree"), folder, shape, str(count)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    return float(said[0]), float(said[1])
