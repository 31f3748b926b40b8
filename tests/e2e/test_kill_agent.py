"""A sample of the node tier's kill matrix, on the real VMM."""

from __future__ import annotations

import pytest

from bed.kill_matrix import KillMatrix

CREATING = [
    "disk.snapshot.done", "net.veth.done", "agent.step.launched.vmm.launch", "agent.step.after.vmm.create",
    "agent.step.after.vmm.boot", "agent.step.before.guest.start",
]  # fmt: skip
DELETING = [
    "agent.step.before.vmm.kill",
    "agent.step.after.vmm.kill",
    "agent.step.after.disk.release",
    "agent.step.before.files.remove",
]


@pytest.mark.real_vmm
def test_killed_between_steps_it_converges(cluster, sandboxes):
    matrix = KillMatrix(cluster, sandboxes)
    alive = matrix.kill_while_creating(CREATING)
    matrix.kill_while_deleting(DELETING, alive)


@pytest.mark.real_vmm
def test_a_guest_does_not_notice_that_the_agent_died(cluster, sandboxes):
    from bed.manifests import sandbox

    sandboxes(sandbox("unaware", "debian-12"))
    cluster.wait_ready("unaware")
    cluster.exec(
        "unaware",
        ["sh", "-c", "cat /proc/sys/kernel/random/boot_id >/run/boot; echo here >/run/mark"],
    )
    cluster.restart_agent()
    cluster.wait_ready("unaware")
    assert (
        cluster.exec(
            "unaware", ["sh", "-c", "cat /run/mark; diff /run/boot /proc/sys/kernel/random/boot_id"]
        ).stdout
        == "here\n"
    )
