"""The agent dies at every step of creation and deletion, with the fake VMM and everything else
real.
"""

from __future__ import annotations

import pytest

from bed.kill_matrix import (
    CAPTURING, CLONING, COPYING, CREATION, DELETION, GIVING_UP, QUESTIONS, SUSPENDING, WAKING, KillMatrix,
)  # fmt: skip
from bed.manifests import clone, sandbox, template

BATCH = 24  # sandboxes of 64 MiB and one vCPU each: what the node has room for


@pytest.fixture
def matrix(cluster, sandboxes):
    return KillMatrix(cluster, sandboxes)


def test_killed_at_every_step_it_converges(cluster, matrix):
    alive: list[str] = []
    for start in range(0, len(CREATION), BATCH):
        points = CREATION[start : start + BATCH]
        alive = matrix.kill_while_creating(points, f"c{start}-")
        if start + BATCH < len(CREATION):
            cluster.delete(*alive)
            cluster.wait_gone(*alive)
    while len(alive) < len(DELETION):
        alive += matrix.kill_while_creating(CREATION[:1], f"more{len(alive)}-")
    matrix.kill_while_deleting(DELETION, alive)


def test_killed_at_every_step_of_suspend_and_wake_it_converges(cluster, matrix):
    for start in range(0, len(SUSPENDING), BATCH):
        points = SUSPENDING[start : start + BATCH]
        names = [f"s{start}-{number}" for number in range(len(points))]
        matrix.make(names)
        matrix.kill_while_changing(points, names, "Suspended")
        waking = WAKING[start : start + BATCH]
        matrix.kill_while_changing(waking, names, "Running")
        cluster.delete(*names)
        cluster.wait_gone(*names)


def test_killed_at_every_step_of_a_template_and_its_clones_it_converges(matrix):
    matrix.kill_while_templates_are_made_and_used()


def test_killed_at_every_step_of_a_boot_from_the_disk_it_converges(eager, matrix):
    names = [f"bitten-{number}" for number in range(len(GIVING_UP))]
    matrix.make(names)
    matrix.kill_while_giving_up_memory(GIVING_UP, names)


def test_every_step_that_is_taken_is_in_the_matrix(cluster, sandboxes):
    """So that a step somebody adds is killed at, too."""
    cluster.restart_agent()
    sandboxes(sandbox("traced", disk={"size": "64Mi"}, command=["/bin/sleep", "86400"], bootSnapshot="Never"))
    cluster.wait_ready("traced")
    sandboxes(template("of-it", "traced"), clone("traced-too", "of-it"))
    cluster.wait_ready("traced-too")
    cluster.kubectl("delete", "sbx", "traced-too", "--timeout=60s")
    for mode in ("Suspended", "Running", "Suspended"):
        cluster.wish(mode, "traced")
        cluster.wait_phase("traced", mode)
    sandboxes(template("of-it-asleep", "traced"))
    cluster.wait_template("of-it-asleep")
    cluster.kubectl("delete", "sbx", "traced", "--timeout=60s")
    hit = {line.split()[0] for line in cluster.failpoints_hit() if "default/traced" in line}
    known = {*CREATION, *DELETION, *SUSPENDING, *WAKING, *CAPTURING, *COPYING, *CLONING, *QUESTIONS}
    assert hit - known == set(), "steps that no kill has been tried at"
