"""Debian bookworm trees, extracted but not configured: what the node's and the guests' root disks
are made of.

The tree is Debian whatever the host is, so that the node's kernel and tools are the same on every
machine. mmdebstrap's "extract" variant runs no maintainer script, which makes it four times faster
than "minbase" and needs no chroot; `_finish` does the few things that those scripts would have
done and that we rely on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

SUITE = "bookworm"
MIRROR_TIMEOUT_SECONDS = 900
# mmdebstrap's own hooks that make /bin, /sbin and /lib links into /usr.
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
# Nobody reads these in a test machine, and every file costs when the disk is written.
UNREAD = ("doc", "man", "info", "locale", "lintian", "bug", "perl", "zoneinfo", "bash-completion")


def extract(packages: Sequence[str], tree: Path) -> None:
    """Fills `tree` with `packages` and all that they depend on."""
    command = [
        "mmdebstrap", "--quiet", "--variant=extract", "--mode=root", "--format=directory",
        f"--hook-dir={MERGED_USR}", f"--include={','.join(packages)}", SUITE, str(tree),
    ]
    run(command)
    _finish(tree)


def _finish(tree: Path) -> None:
    for name in ("passwd", "group"):
        shutil.copyfile(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    (tree / "etc/shadow").touch(mode=0o600)
    for name in UNREAD:
        shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
    for folder in (
        "usr/local/bin",
        "usr/local/sbin",
        "mnt",
        "opt",
        "srv",
        "home",
        "run/sshd",
        "var/log",
        "var/tmp",
    ):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (tree / folder).chmod(0o1777)
    (tree / "root").chmod(0o700)
    awk = tree / "usr/bin/awk"  # update-alternatives would make this link
    if not awk.exists() and (tree / "usr/bin/mawk").exists():
        awk.symlink_to("mawk")
    run(["ldconfig", "-r", str(tree)])


def add_busybox_links(tree: Path) -> None:
    """Commands that the tree lacks and busybox has (ip, ping, vi, nc...) become links to it."""
    listed = subprocess.run(
        [tree / "usr/bin/busybox", "--list-full"], check=True, capture_output=True, text=True
    )
    for path in listed.stdout.split():
        name = os.path.basename(path)
        folder = "sbin" if "sbin/" in path else "bin"
        if not any(
            (tree / "usr" / place / name).is_symlink() or (tree / "usr" / place / name).exists()
            for place in ("bin", "sbin")
        ):
            (tree / "usr" / folder / name).symlink_to("/usr/bin/busybox")


def make_ext4(tree: Path, image: Path, size_mib: int, *options: str) -> None:
    """A sparse ext4 file system holding `tree`; mke2fs reads the folder, so nothing is mounted.

    Tables are written now (a file's holes are zeroes anyway), so that no kernel thread does it in
    the guest.
    """
    image.unlink(missing_ok=True)
    run(
        [
            "mke2fs", "-q", "-t", "ext4", "-m", "0", "-E",
            "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", *options, "-d", str(tree),
            str(image), f"{size_mib}M",
        ]
    )


def run(command: list[str]) -> None:
    """Runs as root in name: fakeroot where we are not, so that the files in an image belong to
    root.
    """
    environment = dict(os.environ, LC_ALL="C")
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(
        command,
        env=environment,
        timeout=MIRROR_TIMEOUT_SECONDS,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}")
