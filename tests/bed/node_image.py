"""The node's kernel, initramfs and root disk: made once from Debian packages, kept in the cache.

    python3 -m bed.node_image        # makes them if need be; prints their folder

The root disk holds no part of Dormouse: what a test brings comes on a disk of its own (bed.node).
No root is needed: files get their owners from fakeroot where we are not root. About 20 s on 2
cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bed import cache, debian, initramfs

# A node's own tools, and those that a person looking into it would miss.
PACKAGES = """
    linux-image-cloud-amd64 base-files base-passwd bash dash coreutils util-linux mount login passwd
    libc-bin libc6 libgcc-s1 libstdc++6 busybox-static
    grep sed findutils gzip tar mawk hostname diffutils less procps psmisc strace
    kmod dmsetup e2fsprogs xfsprogs btrfs-progs
    iproute2 nftables iputils-ping socat netbase curl
    openssh-server openssh-sftp-server python3-minimal jq
""".split()
SIZE_MIB = 2048
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "ext4")
FILES = Path(__file__).parent / "node_root"


@dataclass(frozen=True)
class NodeImage:
    """Paths in one cache entry."""

    folder: Path

    @property
    def root_disk(self) -> Path:
        return self.folder / "root.img"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.cpio"

    @property
    def vmlinuz(self) -> Path:
        """As Debian ships it (bzImage)."""
        return self.folder / "vmlinuz"

    @property
    def vmlinux(self) -> Path:
        """The same kernel unpacked: starts a second sooner in emulation."""
        return self.folder / "vmlinux"

    @property
    def kernel_version(self) -> str:
        return self.modules.name

    @property
    def modules(self) -> Path:
        """The kernel's /lib/modules/VERSION, with modules.dep."""
        return next((self.folder / "lib/modules").iterdir())

    @property
    def busybox(self) -> Path:
        """A static busybox of the same Debian."""
        return self.folder / "busybox"

    @property
    def ssh_key(self) -> Path:
        return self.folder / "ssh_key"


def node_image() -> NodeImage:
    sources = [
        Path(__file__), Path(debian.__file__), Path(initramfs.__file__), *sorted(FILES.iterdir()),
    ]
    return NodeImage(cache.cached("node", sources, as_root_in_name("bed.node_image")))


def as_root_in_name(module: str):
    """A builder for `cache.cached` that runs `python3 -m module --into FOLDER`, under fakeroot if
    we are not root.
    """

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", module, "--into", str(folder)]
        if os.geteuid() != 0:
            command = ["fakeroot", "--", *command]
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parent.parent))
        subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)

    return build


def make(folder: Path) -> None:
    tree = folder / "tree"
    debian.extract(PACKAGES, tree)
    _take_kernel(tree, folder)
    _configure(tree, folder)
    debian.add_busybox_links(tree)
    (tree / "usr/sbin/init").unlink(missing_ok=True)
    (tree / "usr/sbin/init").symlink_to("/usr/bin/busybox")
    debian.make_ext4(tree, folder / "root.img", SIZE_MIB, "-O", "^has_journal")
    shutil.rmtree(tree)


def _take_kernel(tree: Path, folder: Path) -> None:
    """Kernel, modules and initramfs into `folder`; the modules stay in the tree as well."""
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    shutil.copyfile(kernel, folder / "vmlinuz")
    _unpack_kernel(folder / "vmlinuz", folder / "vmlinux")
    shutil.rmtree(tree / "boot")
    debian.run(["depmod", "-b", str(tree), version])
    modules = folder / "lib/modules" / version
    shutil.copytree(tree / "usr/lib/modules" / version, modules, symlinks=True)
    shutil.copy(tree / "usr/bin/busybox", folder / "busybox")

    archive = initramfs.Cpio()
    archive.file("bin/busybox", (folder / "busybox").read_bytes())
    archive.file("init", (FILES / "initramfs-init").read_bytes())
    archive.folder("dev")
    archive.folder("root")
    archive.device("dev/console", 5, 1)
    for number, module in enumerate(initramfs.modules_in_order(modules, INITRAMFS_MODULES)):
        archive.file(f"modules/{number:02}-{module.name}", module.read_bytes(), mode=0o644)
    archive.write(folder / "initramfs.cpio")


def _unpack_kernel(packed: Path, target: Path) -> None:
    """Debian's bzImage carries an LZ4 "legacy" frame; what it holds is an ELF file that QEMU
    starts by its PVH note.
    """
    data = packed.read_bytes()
    start = data.find(b"\x02\x21\x4c\x18")
    unpacked = subprocess.run(
        ["lz4", "-d", "-c", "-q"], input=data[start:], capture_output=True
    ).stdout
    if start < 0 or not unpacked.startswith(b"\x7fELF"):
        raise RuntimeError(f"{packed}: no LZ4-packed ELF kernel inside")
    target.write_bytes(unpacked)


def _configure(tree: Path, folder: Path) -> None:
    for name, place in (
        ("inittab", "etc/inittab"),
        ("setup", "usr/lib/node/setup"),
        ("sshd_config", "etc/ssh/sshd_config"),
    ):
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / name, target)
    for mount_point in ("var/lib/dormouse", "opt/dormouse"):
        (tree / mount_point).mkdir(parents=True)
    with open(tree / "etc/passwd", "a") as passwd:
        passwd.write("sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n")
    with open(tree / "etc/group", "a") as group:
        group.write("kvm:x:104:\n")
    (tree / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n10.0.2.2 host\n")

    _ssh_keygen(folder / "ssh_key")
    authorized = tree / "root/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700)
    shutil.copyfile(folder / "ssh_key.pub", authorized)
    _ssh_keygen(tree / "etc/ssh/node_host_key")


def _ssh_keygen(path: Path) -> None:
    debian.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dormouse test node", "-f", str(path)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the test node's disk and kernel.")
    parser.add_argument(
        "--into", type=Path, help="make them in this empty folder, as the cache asks for it"
    )
    arguments = parser.parse_args()
    if arguments.into:
        make(arguments.into)
    else:
        print(node_image().folder)


if __name__ == "__main__":
    main()
