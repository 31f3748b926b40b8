"""A template freezes an instant; sandboxes that start from it share what it was, and nothing else."""

from __future__ import annotations

import pytest

from bed import busy_guest
from bed.cluster import condition_of
from bed.manifests import TEMPLATES, clone, sandbox, template

WHO = "hostname; cat /etc/machine-id 2>/dev/null || echo none; head -c 16 /dev/urandom | od -An -tx1"


def start(cluster, name: str) -> None:
    busy_guest.start(cluster, name)
    cluster.exec(name, ["sh", "-c", "echo base >/root/shared; sync"])


def check(cluster, name: str, mark: str) -> int:
    assert cluster.exec(name, ["cat", "/root/shared"]).stdout == "base\n"
    return busy_guest.check(cluster, name, mark)


def test_clones_share_the_instant_and_nothing_else(cluster, sandboxes):
    sandboxes(sandbox("source"))
    cluster.wait_ready("source")
    pid = cluster.vmm_pid("source")
    start(cluster, "source")
    frozen = check(cluster, "source", "frozen")
    sandboxes(template("warm", "source"))
    made = cluster.wait_template("warm")["status"]
    assert made["readyToUse"] and made["nodeName"] and made["pauseWindow"].endswith("ms")
    assert made["resources"] == {"cpu": 1, "memory": "128Mi"}
    assert made["compatibility"]["guestVersion"]
    assert made["allocatedBytes"] <= made["memoryBytes"] + made["diskBytes"]
    assert check(cluster, "source", "went-on") >= frozen and cluster.vmm_pid("source") == pid, "the source runs on"

    names = ["clone-1", "clone-2"]
    sandboxes(*(clone(name, "warm") for name in names))
    cluster.wait_ready(*names)
    for name in names:
        assert check(cluster, name, name) >= frozen
        busy_guest.expect_heard(cluster, name, ["frozen", name])
        status = cluster.get(name)["status"]
        assert status["vm"]["startMode"] == "Template"
        assert status["resources"].items() >= {"cpu": 1, "memory": "128Mi"}.items()
    told = [cluster.exec(name, ["sh", "-c", WHO]).stdout.splitlines() for name in ("source", *names)]
    for column, what in enumerate(("hostname", "machine-id", "random numbers")):
        assert len({lines[column] for lines in told}) == 3, f"{what}: {told}"
    assert told[1][0] == "clone-1" and told[2][0] == "clone-2"

    # Both write the same block of the disk and the same page of memory.
    for name in names:
        cluster.exec(name, ["sh", "-c", f"echo {name} >/root/shared; sync; echo {name} >/dev/shm/mark"])
    for name in names:
        assert cluster.exec(name, ["cat", "/root/shared", "/dev/shm/mark"]).stdout.split() == [name, name]
    assert cluster.exec("source", ["cat", "/root/shared"]).stdout == "base\n"
    reasons = {event["reason"] for event in cluster.events("clone-1")}
    assert "Cloned" in reasons


def test_three_levels_down_and_asleep_it_is_still_whole(cluster, sandboxes):
    sandboxes(sandbox("level-0"))
    cluster.wait_ready("level-0")
    start(cluster, "level-0")
    for level in range(1, 4):
        sandboxes(template(f"of-{level}", f"level-{level - 1}"))
        cluster.wait_template(f"of-{level}")
        sandboxes(clone(f"level-{level}", f"of-{level}"))
        cluster.wait_ready(f"level-{level}")
        check(cluster, f"level-{level}", f"at-{level}")
    cluster.wish("Suspended", "level-3")
    cluster.wait_phase("level-3", "Suspended")
    cluster.wish("Running", "level-3")
    cluster.wait_phase("level-3", "Running")
    check(cluster, "level-3", "woken")
    busy_guest.expect_heard(cluster, "level-3", ["at-1", "at-2", "at-3", "woken"])
    assert cluster.get("level-3")["status"]["vm"]["startMode"] == "Resume"


def test_of_one_that_sleeps(cluster, sandboxes):
    sandboxes(sandbox("asleep"))
    cluster.wait_ready("asleep")
    start(cluster, "asleep")
    cluster.wish("Suspended", "asleep")
    cluster.wait_phase("asleep", "Suspended")
    sandboxes(template("dreams", "asleep"))
    cluster.wait_template("dreams")
    assert cluster.get("asleep")["status"]["phase"] == "Suspended"
    sandboxes(clone("awake", "dreams"))
    cluster.wait_ready("awake")
    check(cluster, "awake", "awake")


def test_a_template_waits_for_its_source_and_a_clone_for_its_template(cluster, sandboxes):
    sandboxes(template("early", "late"), clone("earlier", "early"))
    waits = cluster.wait_reason("earlier", "Scheduled", "SourceNotReady")
    assert "early" in condition_of(waits, "Scheduled")["message"]
    cluster.wait_template("early", "Pending")
    sandboxes(sandbox("late"))
    cluster.wait_template("early")
    cluster.wait_ready("earlier")


def test_one_that_is_needed_is_not_deleted_and_says_by_whom(cluster, sandboxes):
    sandboxes(sandbox("owner"))
    cluster.wait_ready("owner")
    sandboxes(template("needed", "owner"))
    cluster.wait_template("needed")
    sandboxes(clone("holder", "needed"))
    cluster.wait_ready("holder")
    cluster.delete("needed", plural=TEMPLATES)
    blocked = cluster.wait_template("needed", "Deleting")
    assert condition_of(blocked, "InUse")["status"] == "True"
    assert "holder" in condition_of(blocked, "InUse")["message"]
    # Once it has slept it has a memory of its own.
    cluster.wish("Suspended", "holder")
    cluster.wait_phase("holder", "Suspended")
    cluster.wait_gone("needed", plural=TEMPLATES)
    cluster.wish("Running", "holder")
    cluster.wait_phase("holder", "Running")
    cluster.expect_no_leaks()


def test_source_and_template_are_deleted_while_they_are_needed(cluster, sandboxes):
    sandboxes(sandbox("leaving"))
    cluster.wait_ready("leaving")
    cluster.exec("leaving", ["sh", "-c", "echo mine >/dev/shm/kept"])
    with cluster.in_the_middle_of("capture.memory", "leaving"):
        sandboxes(template("legacy", "leaving"))
    cluster.kubectl("delete", "sbx", "leaving", "--timeout=90s")
    cluster.wait_template("legacy")

    with cluster.in_the_middle_of("vmm.restore", "heir"):
        sandboxes(clone("heir", "legacy"))
    cluster.delete("legacy", plural=TEMPLATES)
    assert "heir" in condition_of(cluster.wait_template("legacy", "Deleting"), "InUse")["message"]
    cluster.wait_ready("heir")
    assert cluster.exec("heir", ["cat", "/dev/shm/kept"]).stdout == "mine\n"
    cluster.delete("heir")
    cluster.wait_gone("heir")
    cluster.wait_gone("legacy", plural=TEMPLATES)
    cluster.expect_no_leaks()


def test_a_capture_that_fails_leaves_the_source_running_and_says_why(cluster, sandboxes):
    sandboxes(sandbox("unlucky"))
    cluster.wait_ready("unlucky")
    cluster.arm("agent.step.before.capture.memory@default/unlucky=error(ENOSPC)")
    sandboxes(template("never", "unlucky", failureDeadline="5s"))
    failed = cluster.wait_template("never", "Failed")
    assert "failureDeadline" in failed["status"]["error"]["message"]
    assert cluster.exec("unlucky", ["echo", "alive"]).stdout == "alive\n"
    assert cluster.get("unlucky")["status"]["phase"] == "Running"


@pytest.mark.parametrize("after", ["Suspend", "Delete"])
def test_the_source_becomes_what_was_asked(cluster, sandboxes, after):
    name = f"{after.lower()}ed"
    sandboxes(sandbox(name))
    cluster.wait_ready(name)
    sandboxes(template(f"then-{after.lower()}", name, sourceAfterCapture=after))
    cluster.wait_template(f"then-{after.lower()}")
    if after == "Suspend":
        cluster.wait_phase(name, "Suspended")
    else:
        cluster.wait_gone(name)


def test_the_second_of_a_shape_starts_from_the_first_ones_boot(cluster, sandboxes):
    # A size that no other test has.
    shape = {"resources": {"cpu": 1, "memory": "136Mi"}, "command": ["sleep", "86400"]}
    sandboxes(sandbox("first", **shape))
    cluster.wait_ready("first")
    sandboxes(sandbox("second", **shape, env=[{"name": "WHO", "value": "me"}]))
    cluster.wait_ready("second")
    first, second = (cluster.get(name)["status"]["vm"] for name in ("first", "second"))
    assert (first["startMode"], second["startMode"]) == ("Boot", "BootSnapshot")
    assert cluster.exec("second", ["hostname"]).stdout == "second\n"
    assert cluster.exec("second", ["sh", "-c", "echo $WHO"]).stdout == "me\n"
    sandboxes(sandbox("third", **shape, bootSnapshot="Never"))
    cluster.wait_ready("third")
    assert cluster.get("third")["status"]["vm"]["startMode"] == "Boot"
