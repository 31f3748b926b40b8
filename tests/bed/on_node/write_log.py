"""The log of dm-log-writes, as Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c
(6.1) have it: a superblock, then entries in the order in which the disk had made them durable.

Writes stand in the log where the flush that followed their completion does, so that whoever replays up to a FLUSH or FUA
entry has what a power cut right there leaves at the least.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Iterator

MAGIC = 0x6A736677736872
VERSION = 1
SUPER = struct.Struct("<QQQI")  # magic, version, entries, sector size
ENTRY = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of data that are in the log itself
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@dataclass(frozen=True)
class Entry:
    number: int
    sector: int
    sectors: int
    flags: int
    mark: str  # of a MARK
    data_at: int  # in the log, in bytes

    @property
    def is_boundary(self) -> bool:
        return bool(self.flags & (FLUSH | FUA))


class WriteLog:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel's thread does not write through the cache
        magic, version, self.count, self.sector_bytes = SUPER.unpack(os.pread(self._file, SUPER.size, 0))
        if (magic, version) != (MAGIC, VERSION):
            raise ValueError(f"{path} is no log of writes: magic {magic:#x}, version {version}")

    def entries(self) -> Iterator[Entry]:
        at = self.sector_bytes
        for number in range(self.count):
            head = os.pread(self._file, self.sector_bytes, at)
            sector, sectors, flags, data_len = ENTRY.unpack_from(head)
            at += self.sector_bytes
            # A mark's text is in the sector of its head.
            mark = head[ENTRY.size : ENTRY.size + data_len].rstrip(b"\0\n").decode() if flags & MARK else ""
            yield Entry(number, sector, sectors, flags, mark, at)
            if not flags & DISCARD:
                at += sectors * self.sector_bytes

    def apply(self, entry: Entry, target: int) -> None:
        """To the disk's copy, an open file."""
        length, offset = entry.sectors * self.sector_bytes, entry.sector * self.sector_bytes
        done = 0
        while done < length and not entry.flags & DISCARD:
            part = os.pread(self._file, min(length - done, 1 << 20), entry.data_at + done)
            if not part:
                raise ValueError(f"the log ends within entry {entry.number}")
            os.pwrite(target, part, offset + done)
            done += len(part)
