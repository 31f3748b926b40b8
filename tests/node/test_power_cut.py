"""The node's power is cut while sandboxes stand at every step of suspend, wake, capture and clone; all real but the VMM.

What had reached the disk is there afterwards and nothing else (QEMU's death takes the node's page cache with it), so each
sandbox is asleep with a whole generation, or runs, or has booted again from its disk.
"""

from __future__ import annotations

import pytest

from bed.kill_matrix import CREATION, DELETION, GIVING_UP, SUSPENDING, WAKING, KillMatrix

BATCH = 24


@pytest.fixture
def matrix(cluster, sandboxes):
    return KillMatrix(cluster, sandboxes, power=True)


def test_while_they_are_made_and_deleted(matrix):
    alive = matrix.kill_while_creating([point for point in CREATION if ".before." in point], "c")
    points = [point for point in DELETION if ".before." in point]
    matrix.kill_while_deleting(points, alive[: len(points)])


@pytest.mark.parametrize("start", range(0, len(SUSPENDING), BATCH))
def test_while_they_suspend(cluster, matrix, start):
    points = SUSPENDING[start : start + BATCH]
    names = [f"s{start}-{number}" for number in range(len(points))]
    matrix.make(names)
    matrix.kill_while_changing(points, names, "Suspended")
    # Whole, or the disk alone: the memory of one that still ran went with the power.
    cluster.wish("Running", *names)
    cluster.wait_ready(*names)
    modes = {point: cluster.get(name)["status"]["vm"]["startMode"] for point, name in zip(points, names, strict=True)}
    assert set(modes.values()) <= {"Boot", "Resume"}, modes
    committed = points.index("agent.step.after.record.suspended") if start == 0 else 0
    assert all(mode == "Resume" for mode in list(modes.values())[committed:]), modes


def test_while_they_wake(cluster, matrix):
    names = [f"w-{number}" for number in range(len(WAKING))]
    matrix.make(names)
    cluster.wish("Suspended", *names)
    for name in names:
        cluster.wait_phase(name, "Suspended")
    matrix.kill_while_changing(WAKING, names, "Running")


def test_while_templates_are_captured_and_cloned(matrix):
    matrix.kill_while_templates_are_made_and_used()


def test_while_they_boot_from_their_disk(eager, matrix):
    names = [f"bitten-{number}" for number in range(len(GIVING_UP))]
    matrix.make(names)
    matrix.kill_while_giving_up_memory(GIVING_UP, names)
