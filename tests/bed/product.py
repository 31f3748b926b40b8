"""The programs under test: where a build left them, and what of them goes into a node."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bed.accelerator import hypervisor
from bed.guest_parts import GuestParts, guest_parts

ROOT = Path(__file__).resolve().parents[2]
# GoogleTest programs that run on the node; those that were built.
NODE_PROGRAMS = ("host_node_test", "hostile_vmm", "net_test")
# Those that say something about the real VMM.
VMM_PROGRAMS = ("vmm_parity_test", "memory_oracle_test")


class ProductError(RuntimeError):
    """A program has not been built."""


def build_folder() -> Path:
    """$DORMOUSE_BUILD, or what `make test` and `make demo` build."""
    return Path(os.environ.get("DORMOUSE_BUILD") or ROOT / "build" / "release")


def program(name: str) -> Path:
    path = build_folder() / "bin" / name
    if not os.access(path, os.X_OK):
        raise ProductError(
            f"{path} is not there: cmake --preset release && cmake --build --preset release"
        )
    return path


def built_test(name: str) -> Path | None:
    """A GoogleTest program, wherever its room puts it; None when it was not built."""
    for path in sorted(build_folder().rglob(name)):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


@dataclass(frozen=True)
class Vmm:
    """What runs the guests."""

    binary: Path
    real: bool
    why: str = ""  # it is the fake

    @property
    def place(self) -> str:
        """Below /opt/dormouse."""
        return f"bin/{'cloud-hypervisor' if self.real else 'fake-cloud-hypervisor'}"

    def describe(self) -> str:
        if self.real:
            said = subprocess.run(
                [self.binary, "--version"], capture_output=True, text=True, timeout=20, check=False
            )
            version = said.stdout.partition("\n")[0]
            return f"the real one: {version or self.binary} ({self.binary})"
        return f"the FAKE one (no virtual machine runs): {self.why}"


def choose_vmm(wanted: str = "auto") -> Vmm:
    """wanted: "real" or "fake", or "auto" for the real one where there is one. $DORMOUSE_VMM=fake
    makes "auto" the fake.
    """
    if wanted == "auto":
        wanted = os.environ.get("DORMOUSE_VMM", "auto")
    why = "as was asked for"
    if wanted != "fake":
        found = hypervisor()
        if found is not None:
            return Vmm(found.resolve(), real=True)
        if wanted == "real":
            raise ProductError("no cloud-hypervisor: set $CLOUD_HYPERVISOR, or put it on PATH")
        why = "no cloud-hypervisor in $CLOUD_HYPERVISOR or PATH"
    return Vmm(program("fake-cloud-hypervisor"), real=False, why=why)


def make_guest_initramfs(parts: GuestParts, target: Path) -> Path:
    """Our guest agent with the modules of the guests' kernel."""
    target.parent.mkdir(parents=True, exist_ok=True)
    maker = ROOT / "guest-agent" / "make-initramfs"
    done = subprocess.run(
        [
            str(maker),
            "--guest-binary",
            str(program("dormouse-guest")),
            "--modules-dir",
            str(parts.modules),
            "--out",
            str(target),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise ProductError(f"{maker.name}: {done.stdout}{done.stderr}")
    return target


def node_parts(vmm: Vmm, scratch: Path) -> dict[str, Path]:
    """What an agent needs on its node, by its place below /opt/dormouse."""
    guest = guest_parts()
    parts = {
        "bin/dormouse-agent": program("dormouse-agent"),
        "bin/dormouse-launch": program("dormouse-launch"),
        vmm.place: vmm.binary,
        "guest/vmlinuz": guest.kernel,
        "guest/initramfs": make_guest_initramfs(guest, scratch / "initramfs"),
        "images/debian-12.img": guest.debian_image,
        "images/busybox.img": guest.busybox_image,
    }
    return parts
