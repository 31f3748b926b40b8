"""A state file system that fills up under running guests."""

from __future__ import annotations

import pytest

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.leaks import short_id
from bed.manifests import sandbox

STATE = "/var/lib/dormouse"
FILLER = f"{STATE}/filler"
MIB = 1 << 20
WRITER = (
    "while :; do dd if=/dev/urandom of=/root/churn bs=64k count=64 conv=fsync 2>/dev/null; done"
)


def free_mib(cluster) -> int:
    return int(cluster.node.output(["stat", "-f", "-c", "%a %S", STATE]).split()[0]) * 4096 // MIB


@pytest.fixture
def filler(cluster):
    yield FILLER
    cluster.node.run(["rm", "-f", FILLER])


def fill_to(cluster, left_mib: int) -> None:
    """Takes whole allocated blocks, at once."""
    cluster.node.run(["fallocate", "-l", f"{max(free_mib(cluster) - left_mib, 1)}MiB", FILLER])


@pytest.mark.real_vmm
def test_a_full_disk_pauses_guests_and_loses_none(cluster, sandboxes, filler):
    names = ("disk-a", "disk-b")
    sandboxes(
        *(
            sandbox(name, "debian-12", command=["/bin/sh", "-c"], args=[WRITER], user="root")
            for name in names
        )
    )
    cluster.wait_ready(*names)
    for name in names:
        cluster.exec(name, ["sh", "-c", "head -c 3000000 /dev/urandom >/root/kept; sync"])
    sums = {name: cluster.exec(name, ["sha256sum", "/root/kept"]).stdout for name in names}
    pids = {name: cluster.vmm_pid(name) for name in names}

    fill_to(cluster, 100)  # below a quarter of the pause mark of 512 MiB, where all stand still
    for name in names:
        paused = cluster.wait_reason(name, "Ready", "NodeDiskFull", 60)
        assert condition_of(paused, "Ready")["status"] == "False"
    assert {name: cluster.vmm_pid(name) for name in names} == pids, "paused, not killed"
    sandboxes(sandbox("too-late"))
    cluster.wait_for(
        "too-late",
        lambda sbx: {"NoCapacity", "NodeDiskFull"}
        & {condition_of(sbx, kind).get("reason") for kind in ("Scheduled", "Ready")},
        "is not started on a full node",
    )

    cluster.node.run(["rm", "-f", FILLER])
    cluster.wait_ready(*names, "too-late")
    for name in names:
        uid = cluster.get(name)["metadata"]["uid"]
        status = cluster.node.output(["dmsetup", "status", f"dormouse-{short_id(uid)}-root"])
        assert "Invalid" not in status and "Overflow" not in status
        assert cluster.exec(name, ["sha256sum", "/root/kept"]).stdout == sums[name]
        assert cluster.vmm_pid(name) == pids[name]
        assert cluster.get(name)["status"].get("restartCount", 0) == 0


def test_a_node_short_of_disk_refuses_new_sandboxes_and_keeps_running_ones(
    cluster, sandboxes, filler
):
    sandboxes(sandbox("settled"))
    cluster.wait_ready("settled")
    fill_to(cluster, 1200)  # below the reserve of 2 GiB, above the pause mark
    sandboxes(sandbox("refused"))
    eventually(
        lambda: {"NoCapacity", "NoNode"}
        & {condition_of(cluster.get("refused"), "Scheduled").get("reason")},
        "the newcomer waits",
        90,
    )
    assert condition_of(cluster.get("settled"), "Ready")["status"] == "True"
    cluster.node.run(["rm", "-f", FILLER])
    cluster.wait_ready("refused")
