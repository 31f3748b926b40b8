"""The log of writes and the files of sandboxes are read as the kernel and the agent write them."""

import hashlib
import json
import os
import struct

import pytest

from bed.on_node import sandbox_files
from bed.on_node.write_log import DISCARD, ENTRY, FLUSH, FUA, MAGIC, MARK, SUPER, WriteLog

SECTOR = 512


def entry(sector: int, data: bytes = b"", flags: int = 0, sectors: int = 0) -> bytes:
    head = ENTRY.pack(sector, sectors or len(data) // SECTOR, flags, 0)
    return head.ljust(SECTOR, b"\0") + data


def mark(text: str) -> bytes:
    # As `dmsetup message` passes it: with the zero at its end.
    return (ENTRY.pack(0, 0, MARK, len(text) + 1) + text.encode()).ljust(SECTOR, b"\0")


def write(path, *entries: bytes) -> str:
    path.write_bytes(SUPER.pack(MAGIC, 1, len(entries), SECTOR).ljust(SECTOR, b"\0") + b"".join(entries))
    return str(path)


def test_a_log_is_replayed_up_to_each_flush(tmp_path):
    old, new = b"a" * SECTOR, b"b" * 2 * SECTOR
    log = WriteLog(
        write(
            tmp_path / "log", entry(1, old), entry(0, flags=FLUSH), mark("disk-1"), entry(7, flags=DISCARD, sectors=9),
            entry(1, new, FUA), mark("gone"),
        )
    )  # fmt: skip
    entries = list(log.entries())
    assert [each.number for each in entries if each.is_boundary] == [1, 4]
    assert [each.mark for each in entries if each.flags & MARK] == ["disk-1", "gone"]
    disk = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.truncate(disk, 4 * SECTOR)
    for each in entries[:2]:
        log.apply(each, disk)
    assert os.pread(disk, 4 * SECTOR, 0) == bytes(SECTOR) + old + bytes(2 * SECTOR)
    for each in entries[2:]:
        log.apply(each, disk)
    assert os.pread(disk, 4 * SECTOR, 0) == bytes(SECTOR) + new + bytes(SECTOR)
    os.close(disk)


def test_what_is_no_log_is_refused(tmp_path):
    (tmp_path / "log").write_bytes(bytes(4096))
    with pytest.raises(ValueError, match="no log of writes"):
        WriteLog(str(tmp_path / "log"))


def test_a_value_that_does_not_match_its_checksum_is_found(tmp_path):
    value = {"name": "née", "list": [1, None], "a": True}
    text = '{"a":true,"list":[1,null],"name":"née"}'
    checksum = hashlib.sha256(text.encode()).hexdigest()
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"version": 1, "checksum": checksum, "record": value}))
    assert sandbox_files.sealed(str(path), "record") == value
    path.write_text(json.dumps({"version": 1, "checksum": checksum, "record": {**value, "a": False}}))
    with pytest.raises(ValueError, match="checksum"):
        sandbox_files.sealed(str(path), "record")


def test_a_mark_on_a_disk_is_found_by_its_stores_exceptions(tmp_path):
    chunk = sandbox_files.CHUNK
    wanted = sandbox_files.DISK_MARK_AT // chunk
    # A full area, whose metadata and chunks come first, then another with the one that is looked for.
    full = b"".join(struct.pack("<QQ", 5000 + n, 2 + n) for n in range(sandbox_files.EXCEPTIONS))
    second = 1 + sandbox_files.EXCEPTIONS + 1
    store = bytearray((second + 3) * chunk)
    struct.pack_into("<IIII", store, 0, sandbox_files.SNAPSHOT_MAGIC, 1, 1, chunk // 512)
    store[chunk : 2 * chunk] = full
    struct.pack_into("<QQ", store, second * chunk, wanted, second + 2)
    store[(second + 2) * chunk : (second + 3) * chunk] = sandbox_files.mark_page(42)
    path = tmp_path / "store.cow"
    path.write_bytes(store)
    assert sandbox_files.disk_mark(str(path)) == 42
    struct.pack_into("<QQ", store, second * chunk, wanted + 1, second + 2)
    path.write_bytes(store)
    assert sandbox_files.disk_mark(str(path)) == 0


def test_holes_and_zeros_are_the_same_content(tmp_path):
    page = sandbox_files.PAGE
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    with open(sparse, "wb") as file:
        file.truncate(64 * page)
        file.seek(9 * page)
        file.write(b"x" * page)
    dense.write_bytes(bytes(9 * page) + b"x" * page + bytes(54 * page))
    assert sandbox_files.pages_digest(str(sparse)) == sandbox_files.pages_digest(str(dense))
    dense.write_bytes(bytes(8 * page) + b"x" * page + bytes(55 * page))
    assert sandbox_files.pages_digest(str(sparse)) != sandbox_files.pages_digest(str(dense))
