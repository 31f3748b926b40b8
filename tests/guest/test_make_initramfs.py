"""What guest-agent/make-initramfs puts into an initramfs, from kernels made up here."""

import lzma
import struct
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "guest-agent" / "make-initramfs"
REQUIRED = """
    virtio_pci virtio_blk ext4 virtio_net vsock vmw_vsock_virtio_transport_common
    vmw_vsock_virtio_transport
""".split()


def elf_module(*entries: str, signature: bytes = b"") -> bytes:
    """A module of three sections: none, the names, .modinfo."""
    names = b"\0.shstrtab\0.modinfo\0"
    info = b"".join(entry.encode() + b"\0" for entry in entries)
    headers_at = 64 + len(names) + len(info)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x28, headers_at)
    struct.pack_into("<HHH", header, 0x3A, 64, 3, 1)
    sections = bytes(64)
    for name, offset, size in ((1, 64, len(names)), (11, 64 + len(names), len(info))):
        sections += struct.pack("<IIQQQQ", name, 0, 0, 0, offset, size) + bytes(24)
    data = bytes(header) + names + info + sections
    if signature:
        data += signature + bytes(8) + struct.pack(">I", len(signature))
        data += b"~Module signature appended~\n"
    return data


@pytest.fixture
def kernel(tmp_path):
    """A kernel's module directory that has everything required, each without dependencies."""
    folder = tmp_path / "modules"
    (folder / "kernel").mkdir(parents=True)
    for name in REQUIRED:
        (folder / "kernel" / f"{name}.ko").write_bytes(elf_module("license=GPL"))
    return folder


def make(kernel: Path, *arguments: str, check: bool = True) -> tuple[dict[str, bytes], str]:
    binary, out = kernel.parent / "guest", kernel.parent / "out"
    binary.write_bytes(b"the guest binary")
    command = [sys.executable, str(TOOL), "--guest-binary", str(binary), "--modules-dir", str(kernel)]
    done = subprocess.run(
        [*command, "--out", str(out), *arguments], capture_output=True, text=True, timeout=30
    )
    if check:
        assert done.returncode == 0, done.stderr
    return (unpack(out.read_bytes()) if done.returncode == 0 else {}), done.stderr


def unpack(archive: bytes) -> dict[str, bytes]:
    files, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return files
        files[name] = archive[at : at + size]
        at = (at + size + 3) & ~3


def listed(files: dict[str, bytes]) -> list[str]:
    return files["modules/list"].decode().split("\n")[:-1]


def test_the_guest_is_init_and_the_console_is_there(kernel):
    files, _ = make(kernel)
    assert files["init"] == b"the guest binary"
    assert "dev/console" in files and "newroot" in files


def test_a_dependency_comes_before_its_user_and_only_once(kernel):
    places = kernel / "kernel"
    (places / "virtio.ko").write_bytes(elf_module("depends="))
    (places / "virtio-ring.ko").write_bytes(elf_module("depends=virtio"))
    (places / "virtio_pci.ko").write_bytes(elf_module("depends=virtio_ring,virtio"))
    (places / "virtio_net.ko").write_bytes(elf_module("depends=virtio_ring,failover"))
    (places / "failover.ko.xz").write_bytes(lzma.compress(elf_module("license=GPL")))
    files, _ = make(kernel)
    order = listed(files)
    assert order[:3] == ["disk virtio.ko", "disk virtio_ring.ko", "disk virtio_pci.ko"]
    assert order.index("net failover.ko") < order.index("net virtio_net.ko")
    assert len(order) == len(set(order))
    assert files["modules/failover.ko"] == elf_module("license=GPL")


def test_the_transport_is_a_stage_of_its_own_after_the_socket(kernel):
    order = listed(make(kernel)[0])
    socket = [order.index(line) for line in order if line.startswith("socket ")]
    assert max(socket) < order.index("transport vmw_vsock_virtio_transport.ko")


def test_no_driver_is_left_for_after_the_transport(kernel):
    """The guest answers from then on, and may be paused: beside a driver that comes up the VMM would hang."""
    assert listed(make(kernel)[0])[-1].startswith("transport ")


def test_soft_dependencies_of_this_kernel_come_along(kernel):
    places = kernel / "kernel"
    (places / "crc32c_generic.ko").write_bytes(elf_module("license=GPL"))
    (places / "xfs.ko").write_bytes(elf_module("softdep=pre: crc32c sha1 post: other"))
    order = listed(make(kernel)[0])
    assert order.index("fs-xfs crc32c_generic.ko") < order.index("fs-xfs xfs.ko")


def test_a_file_system_can_be_left_out(kernel):
    (kernel / "kernel" / "xfs.ko").write_bytes(elf_module("license=GPL"))
    assert "modules/xfs.ko" in make(kernel)[0]
    assert "modules/xfs.ko" not in make(kernel, "--without-fs", "xfs")[0]


def test_signatures_are_left_behind(kernel):
    signed = elf_module("license=GPL", signature=b"s" * 300)
    (kernel / "kernel" / "ext4.ko").write_bytes(signed)
    assert make(kernel)[0]["modules/ext4.ko"] == elf_module("license=GPL")


def test_what_is_built_in_is_not_looked_for(kernel):
    (kernel / "kernel" / "ext4.ko").unlink()
    (kernel / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    assert not [line for line in listed(make(kernel)[0]) if "ext4" in line]


def test_a_missing_module_is_named(kernel):
    (kernel / "kernel" / "virtio_blk.ko").unlink()
    files, said = make(kernel, check=False)
    assert not files
    assert "virtio_blk" in said


def test_the_same_input_gives_the_same_bytes(kernel):
    first = make(kernel)[0] and (kernel.parent / "out").read_bytes()
    make(kernel)
    assert (kernel.parent / "out").read_bytes() == first
