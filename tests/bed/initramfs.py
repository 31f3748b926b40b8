"""Initial RAM file systems: a cpio archive in the "newc" format
(Documentation/driver-api/early-userspace/ buffer-format.rst), and the kernel modules in it in the
order in which they must be loaded.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Sequence


class Cpio:
    """An archive in memory; `write` ends it. Not compressed: a loader that copies is faster than
    one that unpacks.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0
        self._folders: set[str] = set()

    def folder(self, path: str) -> None:
        parent = ""
        for name in path.strip("/").split("/"):
            parent = f"{parent}/{name}" if parent else name
            if parent not in self._folders:
                self._folders.add(parent)
                self._entry(parent, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, data: bytes, mode: int = 0o755) -> None:
        if "/" in path:
            self.folder(path.rsplit("/", 1)[0])
        self._entry(path, stat.S_IFREG | mode, data)

    def device(self, path: str, major: int, minor: int) -> None:
        if "/" in path:
            self.folder(path.rsplit("/", 1)[0])
        self._entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def write(self, target: Path) -> None:
        self._entry("TRAILER!!!", 0, b"")
        target.write_bytes(b"".join(self._parts))

    def _entry(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._parts += [header, _padding(header), data, _padding(data)]


def _padding(data: bytes) -> bytes:
    return b"\0" * (-len(data) % 4)


def modules_in_order(modules: Path, names: Sequence[str]) -> list[Path]:
    """`names` and all they need, each once, every module after those it needs. `modules` is
    /lib/modules/VERSION.

    A name that is built into the kernel is left out; one that is unknown is an error.
    """
    needs: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        paths[_module_name(path)] = path
    built_in = {
        _module_name(line) for line in (modules / "modules.builtin").read_text().splitlines()
    }
    ordered: list[str] = []
    for name in names:
        path = paths.get(_module_name(name))
        if path is None:
            if _module_name(name) not in built_in:
                raise RuntimeError(f"the kernel {modules.name} has no module {name}")
            continue
        # modules.dep lists the needs of needs too, the deepest last.
        for needed in [*reversed(needs[path]), path]:
            if needed not in ordered:
                ordered.append(needed)
    return [modules / path for path in ordered]


def _module_name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")
