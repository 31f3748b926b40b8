"""What the files of sandboxes and templates say, read without the agent: are they whole, and of which instant.

A test marks guest memory (on_node/guest-memory) and disk with numbers; `memory_mark` and `disk_mark` find them.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct

PAGE = 4096
CHUNK = 4096  # of a store, dm-snapshot's
EXCEPTIONS = CHUNK // 16
SNAPSHOT_MAGIC = 0x70416E53  # drivers/md/dm-snap-persistent.c
MEMORY_MARK_AT = 16 << 20
DISK_MARK_AT = 40 << 20
MARK = b"DORMOUSE-MARK "


def mark_page(number: int) -> bytes:
    return (MARK + b"%d\n" % number).ljust(PAGE, b".")


def _number(page: bytes) -> int:
    """0 where there is no mark."""
    return int(page[len(MARK) :].split(b"\n")[0]) if page.startswith(MARK) else 0


def canonical(value: dict) -> str:
    """The text that a sealed file's checksum is of."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def sealed(path: str, name: str) -> dict:
    """The value of src/common/base/sealed_json.h's file; ValueError when it does not match its checksum."""
    with open(path, encoding="utf-8") as file:
        content = file.read()
    try:
        whole = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path}, of {len(content)} characters: {error}") from error
    if hashlib.sha256(canonical(whole[name]).encode()).hexdigest() != whole["checksum"]:
        raise ValueError(f"{path} does not match its checksum")
    return whole[name]


def pages_digest(path: str) -> str:
    """Of all pages that are not zero, and their places: holes count as zeros."""
    digest = hashlib.sha256()
    zero = bytes(PAGE)
    with open(path, "rb", buffering=0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // PAGE * PAGE
            except OSError:  # ENXIO: only holes follow
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            while at < end:
                block = os.pread(file.fileno(), min(end - at, 1 << 20), at)
                for start in range(0, len(block), PAGE):
                    page = block[start : start + PAGE]
                    if page != zero[: len(page)]:
                        digest.update(b"%d:" % (at + start))
                        digest.update(page)
                at += len(block)
    return digest.hexdigest()


def memory_mark(path: str) -> int:
    with open(path, "rb") as file:
        return _number(os.pread(file.fileno(), PAGE, MEMORY_MARK_AT))


def disk_mark(store: str) -> int:
    """Through the exceptions that dm-snapshot's header and areas list."""
    with open(store, "rb") as file:
        fd = file.fileno()
        magic, valid, _, chunk_sectors = struct.unpack("<IIII", os.pread(fd, 16, 0))
        if (magic, valid, chunk_sectors) != (SNAPSHOT_MAGIC, 1, CHUNK // 512):
            raise ValueError(f"{store} is no valid store: {magic:#x} {valid} {chunk_sectors}")
        area = 1
        while True:
            exceptions = os.pread(fd, CHUNK, area * CHUNK)
            for old, new in struct.iter_unpack("<QQ", exceptions):
                if new == 0:
                    return 0
                if old == DISK_MARK_AT // CHUNK:
                    return _number(os.pread(fd, PAGE, new * CHUNK))
            area += EXCEPTIONS + 1


def gist(folder: str) -> dict:
    """Of a generation or a template: what must be there again."""
    return {name: pages_digest(f"{folder}/{name}") for name in ("memory", "store.cow", "config.json", "state.json")}


def check_generation(folder: str) -> dict:
    """Its gist, and the marks of its memory and its disk; ValueError (OSError) when it is not what its manifest says."""
    manifest = sealed(f"{folder}/manifest.json", "manifest")
    for name, key in (("memory", "memory"), ("store.cow", "store")):
        size = os.stat(f"{folder}/{name}").st_size
        if size != manifest[key]["bytes"]:
            raise ValueError(f"{folder}/{name} has {size} bytes, the manifest says {manifest[key]['bytes']}")
    for name, key in (("config.json", "config"), ("state.json", "state")):
        with open(f"{folder}/{name}", "rb") as file:
            content = file.read()
        if (len(content), hashlib.sha256(content).hexdigest()) != (manifest[key]["bytes"], manifest[key]["sha256"]):
            raise ValueError(f"{folder}/{name} is not what the manifest says: {len(content)} bytes")
    marks = memory_mark(f"{folder}/memory"), disk_mark(f"{folder}/store.cow")
    return {"gist": gist(folder), "marks": marks}
