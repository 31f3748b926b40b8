"""What a sandbox comes through: a new VMM on its node, a month of sleep, its memory swapped out, its VMM killed anywhere."""

from __future__ import annotations

import re
import time

import pytest

from bed.cluster import condition
from bed.manifests import sandbox

MONTH = 31 * 24 * 3600
# Before the commit of a suspend its memory is in the VMM alone.
BEFORE_THE_COMMIT = ("vmm.pause", "capture.state", "capture.memory", "capture.sync")
# Until the guest has answered, a wake can be tried again.
AFTER_IT = ("vmm.restore", "guest.thaw")


def read(cluster, name: str, path: str) -> str:
    return cluster.exec(name, ["cat", path]).stdout.strip()


@pytest.fixture
def new_vmm(cluster):
    """Puts another VMM into the place of the node's: the same program, with another digest."""
    place, other = f"{cluster.layout.parts}/{cluster.vmm.place}", f"{cluster.layout.state}/new-vmm"

    def put() -> None:
        cluster.node.run(f"cp {place} {other} && printf x >>{other} && mount --bind {other} {place}")
        cluster.restart_agent()

    yield put
    cluster.node.run(f"umount {place}; rm -f {other}", check=False)
    cluster.restart_agent()


@pytest.mark.real_vmm
def test_after_an_upgrade_of_the_vmm_it_wakes_on_the_one_that_captured_it(cluster, sandboxes, new_vmm):
    def runs_on(name: str) -> str:
        return cluster.node.output(f"sha256sum </proc/{cluster.vmm_pid(name)}/exe").split()[0]

    sandboxes(sandbox("older"))
    cluster.wait_ready("older")
    cluster.exec("older", ["sh", "-c", "echo kept >/dev/shm/kept"])
    before = runs_on("older")
    cluster.bring("older", "Suspended")
    new_vmm()
    sandboxes(sandbox("newer"))
    cluster.wait_ready("newer")
    cluster.bring("older", "Running")
    assert read(cluster, "older", "/dev/shm/kept") == "kept"
    assert runs_on("older") == before != runs_on("newer")


@pytest.fixture
def node_clock(cluster):
    def jump(seconds: int) -> None:
        cluster.node.run(f"date -s @{int(time.time()) + seconds}")

    yield jump
    jump(0)
    cluster.restart_agent()


@pytest.mark.real_vmm
def test_it_sleeps_for_a_month(cluster, sandboxes, node_clock):
    sandboxes(sandbox("winter"))
    cluster.wait_ready("winter")
    cluster.exec("winter", ["sh", "-c", "echo kept >/dev/shm/kept"])
    cluster.bring("winter", "Suspended")
    node_clock(MONTH)
    cluster.restart_agent()
    assert cluster.get("winter")["status"]["phase"] == "Suspended"
    cluster.bring("winter", "Running")
    assert read(cluster, "winter", "/dev/shm/kept") == "kept"
    guest = int(cluster.exec("winter", ["date", "+%s"]).stdout)
    assert abs(guest - int(cluster.node.output(["date", "+%s"]))) <= 3, "its clock is the node's"
    said = cluster.exec("winter", ["dmesg"]).stdout
    assert "Linux version" in said
    assert not re.search("soft lockup - CPU|rcu: .*stall", said), "a sleep is no processor that was stuck"


@pytest.mark.real_vmm
def test_its_node_loses_its_power(cluster, sandboxes):
    """What sleeps wakes with its memory; what ran boots again from its disk, with what it had brought there."""
    sandboxes(sandbox("asleep"), sandbox("at-work"))
    cluster.wait_ready("asleep", "at-work")
    cluster.exec("asleep", ["sh", "-c", "echo kept >/dev/shm/kept"])
    cluster.exec("at-work", ["sh", "-c", "echo kept >/root/kept; sync; (while :; do echo more >>/root/more; done) >/dev/null 2>&1 &"])
    cluster.bring("asleep", "Suspended")
    boot = cluster.node.read("/proc/sys/kernel/random/boot_id")
    cluster.power_cut()
    assert cluster.node.read("/proc/sys/kernel/random/boot_id") != boot
    assert cluster.get("asleep")["status"]["phase"] == "Suspended"
    booted = cluster.wait_for("at-work", lambda it: it["status"].get("restartCount") == 1 and condition(it, "Ready") == "True", "booted again")
    assert booted["status"]["vm"]["startMode"] == "Boot"
    assert read(cluster, "at-work", "/root/kept") == "kept"
    assert "EXT4-fs error" not in cluster.ctl("logs", "--console", "default/at-work").stdout
    assert cluster.bring("asleep", "Running")["status"]["vm"]["startMode"] == "Resume"
    assert read(cluster, "asleep", "/dev/shm/kept") == "kept"


@pytest.mark.real_vmm
def test_memory_that_was_swapped_out_is_captured_too(cluster, sandboxes, swap):
    sandboxes(sandbox("cold"))
    cluster.wait_ready("cold")
    cluster.exec("cold", ["sh", "-c", "head -c 8M /dev/urandom >/dev/shm/noise; sha256sum /dev/shm/noise >/dev/shm/sum"])
    for _ in range(2):  # as after a boot, and as a mapping of its file
        pid = cluster.vmm_pid("cold")
        cgroup = cluster.node.read(f"/proc/{pid}/cgroup").strip().removeprefix("0::")
        # All that can go; the kernel says EAGAIN when that was less than asked for.
        cluster.node.run(f"echo 512M >/sys/fs/cgroup{cgroup}/memory.reclaim", check=False)
        swapped = re.search(r"^VmSwap:\s+(\d+) kB", cluster.node.read(f"/proc/{pid}/status"), re.MULTILINE)
        assert int(swapped[1]) > 1024, "nothing was swapped out"
        cluster.bring("cold", "Suspended")
        cluster.bring("cold", "Running")
        cluster.exec("cold", ["sha256sum", "-c", "/dev/shm/sum"])


@pytest.mark.real_vmm
def test_its_vmm_is_killed_at_any_moment_of_its_sleep_and_wake(cluster, sandboxes):
    sandboxes(sandbox("mortal"))
    cluster.wait_ready("mortal")
    for number, point in enumerate((*BEFORE_THE_COMMIT, *AFTER_IT)):
        mark = f"mark-{number}"
        cluster.exec("mortal", ["sh", "-c", f"echo {mark} | tee /dev/shm/mark >/root/mark; sync"])
        if point in AFTER_IT:
            cluster.bring("mortal", "Suspended")
        with cluster.in_the_middle_of(point, "mortal"):
            cluster.wish("Running" if point in AFTER_IT else "Suspended", "mortal")
        cluster.node.run(f"kill -9 {cluster.vmm_pid('mortal')}")
        if point in AFTER_IT:
            cluster.wait_phase("mortal", "Running")
        else:
            cluster.bring("mortal", "Running")
        cluster.wait_ready("mortal")
        assert read(cluster, "mortal", "/root/mark") == mark, f"its disk, after {point}"
        if point in AFTER_IT:
            assert cluster.get("mortal")["status"]["vm"]["startMode"] == "Resume", point
            assert read(cluster, "mortal", "/dev/shm/mark") == mark, f"its memory, after {point}"
    cluster.expect_no_leaks()
