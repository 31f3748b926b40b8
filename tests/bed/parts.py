"""The parts disk: what a test brings into the node, as a small read-only ext4 disk that is mounted
at /opt/dormouse.

Nothing is copied inside the (slow) machine. Programs bring the shared libraries they were linked
with, so that a build of any host, sanitizers included, runs in the node.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping

from bed import debian

MOUNT_POINT = "/opt/dormouse"
# glibc's own libraries fit only each other: where one is brought, all are.
GLIBC = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libresolv.so.2",
    "libutil.so.1",
    "libnss_files.so.2",
    "libnss_dns.so.2",
    "libanl.so.1",
    "libmvec.so.1",
    "libthread_db.so.1",
    "ld-linux-x86-64.so.2",
)


def make_parts_disk(parts: Mapping[str, Path], image: Path) -> None:
    """`parts` maps a path below /opt/dormouse to a host's file or folder. Sparse files stay
    sparse.
    """
    with tempfile.TemporaryDirectory(prefix="dormouse-parts-") as folder:
        tree = Path(folder)
        libraries: dict[str, Path] = {}
        for place, source in parts.items():
            target = tree / place
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [
                    "cp", "--recursive", "--dereference", "--reflink=auto", "--sparse=always",
                    "--preserve=mode,timestamps", str(source), str(target),
                ],
                check=True,
            )
            for program in _programs(target):
                libraries.update(shared_libraries(program))
        if libraries:
            _add_libraries(libraries, tree / "lib")
        size = subprocess.run(
            ["du", "--apparent-size", "-sm", folder], check=True, capture_output=True, text=True
        )
        debian.make_ext4(
            tree, image, int(size.stdout.split()[0]) * 5 // 4 + 16, "-O", "^has_journal"
        )


def _programs(target: Path) -> list[Path]:
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return [
        path for path in files if os.access(path, os.X_OK) and path.open("rb").read(4) == b"\x7fELF"
    ]


def shared_libraries(program: Path) -> dict[str, Path]:
    """By name, as the host's loader finds them; none for a static program."""
    listed = subprocess.run(
        ["ldd", str(program)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    found = {}
    for line in listed.stdout.splitlines():
        name, _, rest = line.strip().partition(" => ")
        path = Path((rest or name).split(" (")[0])
        if path.is_absolute() and path.exists():
            found[path.name] = path
        elif "not found" in rest:
            raise RuntimeError(f"{program}: {line.strip()}")
    return found


def _add_libraries(libraries: dict[str, Path], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if not _host_is_the_nodes_suite():
        for name in GLIBC:
            if (sibling := libraries["libc.so.6"].with_name(name)).exists():
                libraries.setdefault(name, sibling)
        (folder / ".replace").touch()  # tells the node's setup to prefer these to its own
    for name, path in libraries.items():
        shutil.copy(path, folder / name)


def _host_is_the_nodes_suite() -> bool:
    try:
        return f"VERSION_CODENAME={debian.SUITE}\n" in Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return False
