"""Suspend with memory and wake where it was: what a user sees, and what the node holds meanwhile."""

from __future__ import annotations

import os
import random
import statistics
import time

import pytest

from bed import busy_guest
from bed.cluster import condition_of
from bed.leaks import short_id
from bed.manifests import sandbox

CYCLES = int(os.environ.get("DORMOUSE_CYCLES", "4"))


MANY = 50
# Of a suspend, as the status names them.
STAGES = {"prepare", "freeze", "pause", "state", "memory", "disk", "sync"}


def memory_extents(cluster, uid: str) -> int:
    said = cluster.node.output(f"filefrag {cluster.layout.state}/sandboxes/{uid}/gen-*/memory")
    return int(said.split(":")[-1].split()[0])


def held(cluster, uid: str) -> list:
    """What the node holds of a sandbox, but for its files."""
    return [thing for thing in cluster.owned() if thing.sandbox == short_id(uid) and thing.kind != "files"]


@pytest.mark.real_vmm
def test_memory_files_pipes_and_children_survive(cluster, sandboxes):
    sandboxes(sandbox("sleeper"))
    cluster.wait_ready("sleeper")
    busy_guest.start(cluster, "sleeper")
    counted = busy_guest.check(cluster, "sleeper", "before")
    extents, wakes, chance = [], [], random.Random(4)
    for cycle in range(CYCLES):
        asleep = cluster.bring("sleeper", "Suspended")
        assert condition_of(asleep, "Suspended")["status"] == "True"
        assert condition_of(asleep, "Ready")["status"] == "False"
        assert asleep["status"]["snapshot"]["generation"] == cycle + 1
        assert set(asleep["status"]["snapshot"]["stages"]) == STAGES
        assert asleep["status"]["suspendedAt"]
        extents.append(memory_extents(cluster, asleep["metadata"]["uid"]))
        began = time.monotonic()
        cluster.bring("sleeper", "Running")
        wakes.append(time.monotonic() - began)
        if cycle % 2:
            continue  # to sleep again, at once
        now = busy_guest.check(cluster, "sleeper", f"cycle-{cycle}")
        assert now >= counted, "the child went back in time"
        counted = now
        busy_guest.write(cluster, "sleeper", chance.sample(range(busy_guest.TABLE_PAGES), 16))
    assert busy_guest.check(cluster, "sleeper", "after") >= counted
    if CYCLES >= MANY:
        # Neither the files nor the wakes get worse with their number.
        half = CYCLES // 2
        assert max(extents[half:]) <= 2 * max(extents[:half]) + 64, extents
        assert statistics.median(wakes[half:]) <= 2 * statistics.median(wakes[:half]), wakes
    busy_guest.expect_heard(cluster, "sleeper", ["before", *(f"cycle-{cycle}" for cycle in range(0, CYCLES, 2)), "after"])
    woken = cluster.get("sleeper")["status"]
    assert woken["vm"]["startMode"] == "Resume" and woken.get("restartCount", 0) == 0
    # The second and later captures write what changed, not what there is.
    assert woken["snapshot"]["writtenBytes"] < woken["snapshot"]["memoryBytes"] / 4
    reasons = {event["reason"] for event in cluster.events("sleeper")}
    assert {"Suspended", "Resumed"} <= reasons


def test_asleep_it_holds_nothing_but_files(cluster, sandboxes):
    sandboxes(sandbox("light"))
    cluster.wait_ready("light")
    uid = cluster.get("light")["metadata"]["uid"]
    assert cluster.vmm_pid("light") != 0 and held(cluster, uid)
    cluster.bring("light", "Suspended")
    assert cluster.vmm_pid("light") == 0
    assert held(cluster, uid) == []
    modes = cluster.node.output(f"stat -c '%a %U' {cluster.layout.state}/sandboxes {cluster.layout.state}/sandboxes/{uid}/gen-*")
    assert set(modes.splitlines()) == {"700 root"}, "no other uid may look into a snapshot"
    cluster.restart_agent()
    assert cluster.get("light")["status"]["phase"] == "Suspended"
    cluster.kubectl("delete", "sbx", "light", "--timeout=60s")
    cluster.expect_no_leaks()


@pytest.mark.real_vmm
def test_the_clock_and_the_first_command_after_a_wake_are_right(cluster, sandboxes):
    sandboxes(sandbox("punctual"))
    cluster.wait_ready("punctual")
    cluster.bring("punctual", "Suspended")
    cluster.bring("punctual", "Running")
    guest = int(cluster.exec("punctual", ["date", "+%s"], seconds=20).stdout)
    node = int(cluster.node.output(["date", "+%s"]))
    assert abs(node - guest) <= 3


def test_a_wake_that_cannot_be_keeps_the_generation_and_says_so(cluster, sandboxes):
    sandboxes(sandbox("damaged"))
    cluster.wait_ready("damaged")
    uid = cluster.get("damaged")["metadata"]["uid"]
    cluster.bring("damaged", "Suspended")
    generation = f"{cluster.layout.state}/sandboxes/{uid}/gen-1"
    cluster.node.run(f"cp {generation}/state.json /tmp/state.json; echo '{{}}' >{generation}/state.json")
    cluster.wish("Running", "damaged")
    told = cluster.wait_reason("damaged", "Ready", "ResumeFailed")
    assert "state.json" in condition_of(told, "Ready")["message"]
    kept = set(cluster.node.output(f"ls {generation}").split())
    assert kept >= {"config.json", "manifest.json", "memory", "state.json", "store.cow"}
    cluster.node.run(f"cp /tmp/state.json {generation}/state.json")
    cluster.wait_phase("damaged", "Running")


@pytest.fixture
def unproven(cluster):
    """An agent whose VMM calls itself a later fix release: it trusts that one with its own snapshots only."""
    usual = cluster.agent_flags
    at = cluster.layout
    renamed = f"{at.state}/cloud-hypervisor-v53.1"
    cluster.node.run(f"sed s/v53.0/v53.1/g {at.parts}/{cluster.vmm.place} >{renamed} && chmod +x {renamed}")
    cluster.agent_flags = [*usual, f"--vmm={renamed}"]
    cluster.restart_agent()
    yield
    cluster.agent_flags = usual
    cluster.restart_agent()
    cluster.node.run(f"rm {renamed}")


@pytest.mark.real_vmm
def test_a_vmm_of_another_version_sleeps_by_its_own_snapshot_and_wakes_by_a_copy(cluster, sandboxes, unproven):
    sandboxes(sandbox("stock"))
    cluster.wait_ready("stock")
    cluster.exec("stock", ["sh", "-c", "echo kept >/dev/shm/kept"])
    taken = cluster.metric("dormouse_stock_snapshots_total")
    for _ in range(2):
        asleep = cluster.bring("stock", "Suspended")["status"]["snapshot"]
        assert asleep["writtenBytes"] >= asleep["memoryBytes"], "all of it is written"
        cluster.bring("stock", "Running")
        assert cluster.exec("stock", ["cat", "/dev/shm/kept"]).stdout == "kept\n"
        assert "/memory\n" not in cluster.node.read(f"/proc/{cluster.vmm_pid('stock')}/maps")
    assert cluster.metric("dormouse_stock_snapshots_total") == taken + 2
    assert cluster.get("stock")["status"]["vm"]["startMode"] == "Resume"


def annotate(cluster, name: str, value: str) -> None:
    cluster.kubectl("annotate", "--overwrite", "sbx", name, f"dormouse.dev/boot-from-disk{value}")


@pytest.mark.real_vmm
def test_a_flipped_byte_of_memory_is_found_and_it_boots_from_its_disk_where_that_is_asked_for(cluster, sandboxes, eager):
    sandboxes(sandbox("bitten"))
    cluster.wait_ready("bitten")
    uid = cluster.get("bitten")["metadata"]["uid"]
    cluster.exec("bitten", ["sh", "-c", "echo kept >/root/kept; sync; echo lost >/dev/shm/lost"])
    cluster.bring("bitten", "Suspended")
    generation = f"{cluster.layout.state}/sandboxes/{uid}/gen-1"
    cluster.flip_a_byte_of_memory(uid)
    cluster.wish("Running", "bitten")
    told = cluster.wait_reason("bitten", "Ready", "ResumeFailed")
    assert "memory chunk 2 " in condition_of(told, "Ready")["message"]
    digests = f"test -s {generation}/memory.digests && echo there"
    assert cluster.node.output(digests).strip() == "there", "nothing is given up that nobody said to"
    annotate(cluster, "bitten", "=true")
    cluster.wait_ready("bitten")
    awake = cluster.get("bitten")["status"]
    assert awake["phase"] == "Running" and awake["vm"]["startMode"] == "Boot"
    assert cluster.exec("bitten", ["cat", "/root/kept"]).stdout == "kept\n"
    assert cluster.exec("bitten", ["ls", "/dev/shm/lost"], check=False).returncode != 0
    assert cluster.node.output(f"ls {cluster.layout.state}/sandboxes/{uid}").count("gen-") == 0
    assert "MemoryGivenUp" in {event["reason"] for event in cluster.events("bitten")}
    # It still stands there, and says nothing of the next sleep.
    cluster.exec("bitten", ["sh", "-c", "echo good >/dev/shm/good"])
    cluster.bring("bitten", "Suspended")
    cluster.bring("bitten", "Running")
    assert cluster.get("bitten")["status"]["vm"]["startMode"] == "Resume"
    assert cluster.exec("bitten", ["cat", "/dev/shm/good"]).stdout == "good\n"


def test_a_capture_without_room_leaves_it_running(cluster, sandboxes):
    sandboxes(sandbox("full"))
    cluster.wait_ready("full")
    cluster.arm("agent.step.before.capture.memory@default/full=1*error(ENOSPC)")
    cluster.wish("Suspended", "full")
    told = cluster.wait_reason("full", "Suspended", "SnapshotFailed")
    assert told["status"]["phase"] == "Running" and condition_of(told, "Ready")["status"] == "True"
    assert cluster.exec("full", ["echo", "alive"]).stdout == "alive\n"
    cluster.wait_phase("full", "Suspended")


@pytest.mark.real_vmm
def test_wishes_in_quick_succession_end_in_the_last(cluster, sandboxes):
    sandboxes(sandbox("fickle"))
    cluster.wait_ready("fickle")
    cluster.exec("fickle", ["sh", "-c", "echo same >/dev/shm/mark"])
    chance = random.Random(50)
    cut_short = 0
    for _ in range(50):
        mode = chance.choice(("Suspended", "Running"))
        cluster.wish(mode, "fickle")
        # Some are taken back at once, some when they have begun, some when they are done.
        until = chance.choice(((), ("Suspending", "Resuming", mode), (mode,)))
        if until:
            seen = cluster.wait_for("fickle", lambda it: it["status"]["phase"] in until, f"one of {until}")
            cut_short += seen["status"]["phase"] != mode
    assert cut_short > 0, "none was taken back halfway"
    cluster.wish("Suspended", "fickle")
    cluster.wait_phase("fickle", "Suspended")
    cluster.wish("Running", "fickle")
    cluster.wait_phase("fickle", "Running")
    assert cluster.exec("fickle", ["cat", "/dev/shm/mark"]).stdout == "same\n"
    assert cluster.get("fickle")["status"].get("restartCount", 0) == 0


def test_deleted_while_it_suspends_and_wakes(cluster, sandboxes):
    for step, mode in (("capture.memory", "Suspended"), ("vmm.restore", "Running")):
        name = f"gone-{mode.lower()}"
        sandboxes(sandbox(name))
        cluster.wait_ready(name)
        if mode == "Running":
            cluster.bring(name, "Suspended")
        with cluster.in_the_middle_of(step, name):
            cluster.wish(mode, name)
        cluster.kubectl("delete", "sbx", name, "--timeout=90s")
        cluster.expect_no_leaks()
