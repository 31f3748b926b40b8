"""A sample of the node tier's kill matrix, on the real VMM."""

from __future__ import annotations

import pytest

from bed.cluster import NODE_NAME, condition_of
from bed.eventually import eventually
from bed.kill_matrix import IN_THE_COPY, KillMatrix
from bed.manifests import sandbox

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
SUSPENDING = [
    "agent.step.after.guest.freeze", "agent.step.after.vmm.pause", "agent.step.after.capture.state",
    "agent.step.after.record.suspended", "agent.step.after.vmm.kill", IN_THE_COPY,
]  # fmt: skip
WAKING = [
    "agent.step.after.record.save", "agent.step.after.disk.restore", "agent.step.after.vmm.launch",
    "agent.step.after.vmm.restore", "agent.step.after.guest.thaw",
]  # fmt: skip


@pytest.mark.real_vmm
def test_killed_between_steps_it_converges(cluster, sandboxes):
    matrix = KillMatrix(cluster, sandboxes)
    alive = matrix.kill_while_creating(CREATING)
    matrix.kill_while_deleting(DELETING, alive)


@pytest.mark.real_vmm
def test_killed_while_it_suspends_and_wakes_it_converges(cluster, sandboxes):
    matrix = KillMatrix(cluster, sandboxes)
    names = [f"sleeper-{number}" for number in range(len(SUSPENDING))]
    matrix.make(names)
    for name in names:
        cluster.exec(name, ["sh", "-c", f"echo {name} >/dev/shm/mark"])
    matrix.kill_while_changing(SUSPENDING, names, "Suspended")
    matrix.kill_while_changing(WAKING, names, "Running")
    cluster.bring(names[-1], "Running")
    for name in names:
        assert cluster.exec(name, ["cat", "/dev/shm/mark"]).stdout == f"{name}\n", "its memory"


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


def test_a_node_whose_agent_is_dead_is_not_ready_until_it_is_back(cluster, sandboxes):
    def ready() -> str:
        one = condition_of(cluster.get(NODE_NAME, "sandboxnodes"), "Ready")
        return f"{one['status']} {one['reason']}"

    sandboxes(sandbox("meanwhile"))
    cluster.wait_ready("meanwhile")
    assert ready() == "True Ready"
    cluster.kill_agent()
    try:
        eventually(lambda: ready() == "Unknown NodeLost", "its SandboxNode says so", 70)
    finally:
        cluster.start_agent()
    eventually(lambda: ready() == "True Ready", "the agent takes it back", 30)
    cluster.wait_ready("meanwhile")
