"""What a real VMM needs, and what it is left with."""

from __future__ import annotations

import re

import pytest

from bed.manifests import sandbox

MEMORY_MIB, DISK_MIB, VCPUS = 96, 256, 1
BEYOND_MIB = 200  # of the disk, and beyond what a file of the VMM's may be


@pytest.fixture
def confined(cluster, sandboxes):
    name = "confined"
    sandboxes(
        sandbox(
            name,
            resources={"cpu": VCPUS, "memory": f"{MEMORY_MIB}Mi"},
            disk={"size": f"{DISK_MIB}Mi"},
            command=["/bin/sleep", "86400"],
            bootSnapshot="Never",
        )
    )
    cluster.wait_ready(name)
    return name


def group_of(cluster, name: str) -> str:
    return "/sys/fs/cgroup" + cluster.node.output(f"cut -d: -f3 /proc/{cluster.vmm_pid(name)}/cgroup").strip()


@pytest.mark.real_vmm
def test_a_vmm_runs_within_its_limits_before_and_after_a_wake(cluster, confined):
    for turn in ("booted", "woken"):
        pid, group = cluster.vmm_pid(confined), group_of(cluster, confined)

        def said(file: str) -> str:
            return cluster.node.read(f"{group}/{file}").strip()

        assert said("cpu.max") == f"{(VCPUS + 1) * 100_000} 100000"
        assert said("cpu.weight") == str(100 * VCPUS)
        limits = cluster.node.read(f"/proc/{pid}/limits")
        assert re.search(rf"Max file size +{MEMORY_MIB << 20} +{MEMORY_MIB << 20} ", limits), limits
        # It has room: one for each connection to its guest, and whatever a later version has more.
        threads, most = int(said("pids.current")), int(said("pids.max"))
        files = cluster.node.output(f"ls -l /proc/{pid}/fd").splitlines()
        print(f"{turn}: {threads} threads of {most}, {len(files)} open files")
        assert threads <= most // 2 and len(files) <= 256
        assert not any("io_uring" in line for line in files), "it does without"
        if turn == "booted":
            cluster.bring(confined, "Suspended")
            cluster.bring(confined, "Running")


@pytest.mark.real_vmm
def test_a_guest_writes_all_of_a_disk_that_is_larger_than_its_memory(cluster, confined):
    """The limit of a VMM's files is not one of its disk."""
    written = cluster.exec(
        confined,
        ["sh", "-c", f"head -c 1048576 /dev/urandom >/tmp/block && dd if=/tmp/block of=/dev/vda bs=1M seek={BEYOND_MIB}"
         " conv=notrunc,fsync 2>/dev/null && sha256sum </tmp/block"],
    ).stdout  # fmt: skip
    read = cluster.exec(
        confined,
        ["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches; "
         f"dd if=/dev/vda bs=1M skip={BEYOND_MIB} count=1 2>/dev/null | sha256sum"],
    ).stdout  # fmt: skip
    assert read == written
