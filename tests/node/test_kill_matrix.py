"""The agent dies at every step of creation and deletion, with the fake VMM and everything else
real.
"""

from __future__ import annotations

import pytest

from bed.eventually import eventually
from bed.kill_matrix import (
    CAPTURING, CLONING, COPYING, CREATION, DELETION, GIVING_UP, IN_THE_COPY, STOPPING, SUSPENDING, WAKING, KillMatrix,
)  # fmt: skip
from bed.leaks import short_id
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


def test_killed_at_every_step_of_a_stop_it_is_off_and_starts_again(cluster, matrix):
    names = [f"off-{number}" for number in range(len(STOPPING))]
    matrix.make(names)
    matrix.kill_while_changing(STOPPING, names, "Stopped")
    cluster.wish("Running", *names)
    cluster.wait_ready(*names)
    cluster.delete(*names)
    cluster.wait_gone(*names)


def test_killed_at_every_step_of_a_template_and_its_clones_it_converges(matrix):
    matrix.kill_while_templates_are_made_and_used()


def test_killed_at_every_step_of_a_boot_from_the_disk_it_converges(eager, matrix):
    names = [f"bitten-{number}" for number in range(len(GIVING_UP))]
    matrix.make(names)
    matrix.kill_while_giving_up_memory(GIVING_UP, names)


def test_agent_and_vmm_killed_while_the_disk_stands_still(cluster, sandboxes):
    """Nothing that has it open ends before the next agent lets go of it."""
    sandboxes(sandbox("both", disk={"size": "64Mi"}, command=["/bin/sleep", "86400"], bootSnapshot="Never"))
    cluster.wait_ready("both")
    device = f"dormouse-{short_id(cluster.get('both')['metadata']['uid'])}-root"
    cluster.arm(f"{IN_THE_COPY}@default/both=park")
    cluster.wish("Suspended", "both")
    eventually(lambda: f"{IN_THE_COPY} default/both" in cluster.failpoints_hit(), "it copies the store")
    pid = cluster.vmm_pid("both")
    cluster.kill_agent()
    cluster.node.run(["kill", "-KILL", str(pid)])
    assert cluster.node.output(["dmsetup", "info", "-c", "--noheadings", "-o", "suspended", device]).strip() == "Suspended"
    cluster.start_agent()
    cluster.wait_phase("both", "Suspended")
    cluster.wish("Running", "both")
    cluster.wait_ready("both")
    cluster.delete("both")
    cluster.wait_gone("both")
    cluster.expect_no_leaks()


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
    known = {*CREATION, *DELETION, *SUSPENDING, *WAKING, *STOPPING, *CAPTURING, *COPYING, *CLONING}
    assert hit - known == set(), "steps that no kill has been tried at"
