"""VMMs that do not do what they are told: they hang, or run on beside their own capture."""

from __future__ import annotations

import pytest

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.leaks import short_id
from bed.manifests import TEMPLATES, sandbox, template

HUNG = "VMMHung"


def running(name: str) -> dict:
    return sandbox(name, restartPolicy="Never", command=["/bin/sleep", "86400"], bootSnapshot="Never")


def say(cluster, name: str, word: str) -> None:
    """To the fake VMM that runs (tests/fakes/fake-cloud-hypervisor/knobs.h)."""
    folder = f"{cluster.layout.run}/vm/{short_id(cluster.get(name)['metadata']['uid'])}"
    cluster.node.run(f"echo {word} >{folder}/vsock.sock.fake && chmod 644 {folder}/vsock.sock.fake")


def expect_booted_anew(cluster, name: str, before: int) -> None:
    cluster.wait_for(name, lambda found: found["status"].get("restartCount") == 1, "it is started again", 180)
    cluster.wait_ready(name)
    assert cluster.vmm_pid(name) not in (0, before)
    eventually(lambda: any(event["reason"] == HUNG for event in cluster.events(name)), "an event says why")


@pytest.fixture
def impatient(cluster):
    """An agent that waits ten seconds for a silent VMM, not two minutes."""
    flags = cluster.agent_flags
    cluster.agent_flags = [*flags, "--vmm-timeout=10"]
    cluster.restart_agent()
    yield
    cluster.agent_flags = flags
    cluster.restart_agent()


def test_a_vmm_that_hangs_is_ended_and_its_guest_boots_from_its_disk(cluster, sandboxes, impatient):
    names = ("silent", "hangs-in-pause", "bystander")
    sandboxes(*map(running, names))
    cluster.wait_ready(*names)
    pids = {name: cluster.vmm_pid(name) for name in names}
    say(cluster, "hangs-in-pause", "api=hang-in-pause")
    say(cluster, "silent", "api=silent")
    cluster.restart_agent()  # which looks at all of them
    cluster.wish("Suspended", "hangs-in-pause")
    told = cluster.wait_reason("silent", "Ready", HUNG)
    assert cluster.vmm_pid("silent") == pids["silent"], "its guest may go on until it is given up"
    assert condition_of(told, "Ready")["status"] == "False"
    expect_booted_anew(cluster, "silent", pids["silent"])
    cluster.wait_for(
        "hangs-in-pause", lambda found: condition_of(found, "Suspended").get("reason") == HUNG, "it says why", 180
    )
    slept = cluster.wait_phase("hangs-in-pause", "Suspended", 180)
    assert slept["status"]["restartCount"] == 1
    assert slept["status"]["snapshot"]["generation"] > 0, "with the memory of its new boot"
    assert any(event["reason"] == HUNG for event in cluster.events("hangs-in-pause"))
    assert cluster.vmm_pid("bystander") == pids["bystander"]


def test_nothing_of_a_vmm_runs_while_its_memory_and_its_disk_are_captured(cluster, sandboxes):
    sandboxes(running("captured"))
    cluster.wait_ready("captured")
    pid = cluster.vmm_pid("captured")
    group = cluster.node.output(f"cut -d: -f3 /proc/{pid}/cgroup").strip()

    def frozen() -> bool:
        return "frozen 1" in cluster.node.read(f"/sys/fs/cgroup{group}/cgroup.events")

    for part in ("memory", "disk"):
        with cluster.in_the_middle_of(f"capture.{part}", "captured"):
            cluster.apply(template(f"of-{part}", "captured"))
        assert frozen(), part
        cluster.wait_template(f"of-{part}")
        eventually(lambda: not frozen(), "it goes on")
        cluster.wait_ready("captured")
        cluster.delete(f"of-{part}", plural=TEMPLATES)
        cluster.wait_gone(f"of-{part}", plural=TEMPLATES)
    assert cluster.vmm_pid("captured") == pid
