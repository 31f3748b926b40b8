"""Which accelerator the node gets: KVM where it boots a node *and* a guest inside it, else
emulation.

Many build machines have a /dev/kvm that opens and runs no stock guest, so only trying tells: once
per boot of the host, with a time limit. DORMOUSE_ACCELERATOR=tcg|kvm decides without trying.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from bed import cache
from bed.initramfs import Cpio
from bed.node_image import node_image

BOOT_SECONDS = 25
GUEST_SECONDS = 20
PROOF = "A GUEST IS UP"
GUEST_INIT = f"""#!/bin/busybox sh
/bin/busybox echo {PROOF}
/bin/busybox poweroff -f
"""
RUN_GUEST = """
    cloud-hypervisor --kernel /opt/dormouse/vmlinuz --initramfs /opt/dormouse/guest.cpio \
        --cmdline 'console=ttyS0 quiet' --memory size=256M --serial tty --console off
"""


def choose_accelerator() -> str:
    forced = os.environ.get("DORMOUSE_ACCELERATOR")
    if forced:
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    host_boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    verdict = cache.cached("accelerator", [host_boot], _try)
    return (verdict / "verdict").read_text()


def _try(folder: Path) -> None:
    from bed.node import Node  # it asks this module when it is not told

    verdict, why = "tcg", ""
    with tempfile.TemporaryDirectory(prefix="dormouse-kvm-") as scratch:
        try:
            node = Node(
                Path(scratch), parts=proof_parts(Path(scratch)), accelerator="kvm", life_seconds=120
            )
            try:
                node.boot(seconds=BOOT_SECONDS)
                if (
                    hypervisor()
                    and PROOF not in node.run(RUN_GUEST, seconds=GUEST_SECONDS, check=False).stdout
                ):
                    why = "it runs a node, but no guest inside"
                else:
                    verdict = "kvm"
            finally:
                node.stop()
        except Exception as error:  # whatever went wrong, emulation remains
            why = str(error).splitlines()[0].partition(";")[0]
    if why:
        print(
            f"bed: /dev/kvm is of no use here ({why}): the node is emulated",
            file=sys.stderr,
            flush=True,
        )
    (folder / "verdict").write_text(verdict)


def hypervisor() -> Path | None:
    found = os.environ.get("CLOUD_HYPERVISOR") or shutil.which("cloud-hypervisor")
    return Path(found) if found else None


def proof_parts(scratch: Path) -> dict[str, Path]:
    """A kernel and an initramfs that prints PROOF, made in `scratch`; and the VMM, if there is one."""
    image = node_image()
    guest = Cpio()
    guest.file("bin/busybox", image.busybox.read_bytes())
    guest.file("init", GUEST_INIT.encode())
    guest.folder("dev")
    guest.device("dev/console", 5, 1)
    guest.write(scratch / "guest.cpio")
    parts = {"vmlinuz": image.vmlinuz, "guest.cpio": scratch / "guest.cpio"}
    if found := hypervisor():
        parts["bin/cloud-hypervisor"] = found
    return parts
