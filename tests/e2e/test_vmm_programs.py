"""GoogleTest programs that ask the real VMM what we believe of it; on the fake they run in the unit tier."""

from __future__ import annotations

import pytest

from bed.product import VMM_PROGRAMS, built_test

SECONDS = 900  # they boot many guests, and an emulated node takes its time


@pytest.mark.real_vmm
@pytest.mark.parametrize("name", VMM_PROGRAMS)
def test_what_we_believe_of_the_vmm_is_so(cluster, swap, name):
    if built_test(name) is None:
        pytest.skip(f"{name} is not part of this build")
    parts = cluster.layout.parts
    scratch = f"{cluster.layout.state}/programs"  # on disk: memory images do not fit into the node's memory
    command = (
        f"mkdir -p {scratch} && DORMOUSE_TEST_SWAP=on DORMOUSE_TEST_DIR={scratch} CLOUD_HYPERVISOR={parts}/{cluster.vmm.place} DORMOUSE_TEST_KERNEL={parts}/guest/vmlinuz"
        f" DORMOUSE_TEST_INITRAMFS={parts}/guest/initramfs DORMOUSE_TEST_DISK={parts}/images/busybox.img"
        f" timeout {SECONDS} {parts}/tests/{name}"
    )
    done = cluster.node.run(command, seconds=SECONDS + 30, check=False)
    cluster.node.run(["rm", "-rf", scratch])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
