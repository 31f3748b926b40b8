"""GoogleTest programs that need a node: real device-mapper, namespaces, KVM."""

from __future__ import annotations

import pytest

from bed.product import NODE_PROGRAMS, built_test, choose_vmm

SECONDS = 900  # the parity test boots guests, and an emulated node takes its time


@pytest.mark.parametrize("name", NODE_PROGRAMS)
def test_program_passes_on_the_node(cluster, name):
    if built_test(name) is None:
        pytest.skip(f"{name} is not part of this build")
    parts = cluster.layout.parts
    vmm = f"{parts}/{choose_vmm().place}"
    command = (
        f"cd /tmp && CLOUD_HYPERVISOR={vmm} DORMOUSE_TEST_KERNEL={parts}/guest/vmlinuz"
        f" DORMOUSE_TEST_INITRAMFS={parts}/guest/initramfs DORMOUSE_TEST_DISK={parts}/images/busybox.img"
        f" timeout {SECONDS} {parts}/tests/{name}"
    )
    done = cluster.node.run(command, seconds=SECONDS + 30, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
