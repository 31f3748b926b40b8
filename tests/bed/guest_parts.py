"""What the guests of the tests are made of, beside the guest agent: a kernel with its modules, and
base images.

    python3 -m bed.guest_parts       # makes them if need be; prints their paths

`debian-12.img`: Debian's shell and core tools, an unmodified system with no trace of Dormouse in
it. `busybox.img`: one static program, for tests that need many small disks or a fast boot.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from bed import cache, debian
from bed.node_image import as_root_in_name, node_image

PACKAGES = """
    base-files base-passwd bash dash coreutils libc-bin login util-linux mount
    grep sed findutils gzip tar mawk hostname procps ncurses-base netbase busybox-static
""".split()
DEBIAN_SIZE_MIB = 192
BUSYBOX_SIZE_MIB = 16
# Comes along as a dependency of packaging scripts, which never run here.
UNUSED = (
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/bin/perl*",
    "usr/lib/x86_64-linux-gnu/gconv",
    "var/cache/apt",
    "var/lib/apt",
)


@dataclass(frozen=True)
class GuestParts:
    kernel: Path  # bzImage: what Cloud Hypervisor starts fastest in emulation
    modules: Path  # that kernel's /lib/modules/VERSION, for the guest's initramfs
    busybox: Path  # static, the host's or guest's alike
    debian_image: Path
    busybox_image: Path


def guest_parts() -> GuestParts:
    node = node_image()
    sources = [Path(__file__), Path(debian.__file__)]
    folder = cache.cached("guest", sources, as_root_in_name("bed.guest_parts"))
    return GuestParts(
        kernel=node.vmlinuz,
        modules=node.modules,
        busybox=node.busybox,
        debian_image=folder / "debian-12.img",
        busybox_image=folder / "busybox.img",
    )


def make(folder: Path) -> None:
    tree = folder / "tree"
    debian.extract(PACKAGES, tree)
    for pattern in UNUSED:
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    debian.add_busybox_links(tree)
    _add_users(tree)
    debian.make_ext4(tree, folder / "debian-12.img", DEBIAN_SIZE_MIB, "-L", "debian-12")
    _make_busybox_tree(tree / "usr/bin/busybox", folder / "small")
    debian.make_ext4(folder / "small", folder / "busybox.img", BUSYBOX_SIZE_MIB, "-L", "busybox")
    shutil.rmtree(tree)
    shutil.rmtree(folder / "small")


def _make_busybox_tree(busybox: Path, tree: Path) -> None:
    for place in (
        "usr/bin",
        "usr/sbin",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "root",
        "var",
        "mnt",
    ):
        (tree / place).mkdir(parents=True)
    for name in ("bin", "sbin"):
        (tree / name).symlink_to(f"usr/{name}")
    shutil.copy(busybox, tree / "usr/bin/busybox")
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/os-release").write_text('ID=busybox\nPRETTY_NAME="busybox"\n')
    debian.add_busybox_links(tree)
    _add_users(tree)


def _add_users(tree: Path) -> None:
    """An ordinary user, `user` (1000), who is also in the group `staff2` (2000)."""
    with open(tree / "etc/passwd", "a") as passwd:
        passwd.write("user:x:1000:1000:An ordinary user:/home/user:/bin/sh\n")
    with open(tree / "etc/group", "a") as group:
        group.write("user:x:1000:\nstaff2:x:2000:user\n")
    home = tree / "home/user"
    home.mkdir(parents=True)
    debian.run(["chown", "1000:1000", str(home)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the test guests' kernel and base images.")
    parser.add_argument(
        "--into", type=Path, help="make the images in this empty folder, as the cache asks for it"
    )
    arguments = parser.parse_args()
    if arguments.into:
        make(arguments.into)
        return
    parts = guest_parts()
    for name in parts.__dataclass_fields__:
        print(f"{name}={getattr(parts, name)}")


if __name__ == "__main__":
    main()
