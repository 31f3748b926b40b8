"""The node's state for a while on a spare disk, an XFS of its own on a device-mapper device whose table a test changes.

    with StateDisk(cluster, mount="prjquota") as state:
        state.limit({101: Limit(blocks_kib=64)})      # a real ENOSPC, in one directory
        state.break_writes(); state.mend()            # of data: the file system's own log goes on

The sandboxes of the usual state are asleep in the sense that nobody knows of them meanwhile: there must be none. The
agent is started anew on the way in and on the way out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping

from bed.cluster import Cluster
from bed.eventually import eventually

STATE = "/var/lib/dormouse"
USUAL = "/srv/state"  # where the usual disk is meanwhile
USUAL_DISK = "/dev/vdb"
DISK, LOG_DISK = "/dev/vdd", "/dev/vde"
NAME = "bed-state"
DEVICE = f"/dev/mapper/{NAME}"
SPARE_BYTES = (640 << 20, 2 << 30)
SECTOR = 512
# It is smaller than what an agent usually keeps in reserve.
FLAGS = {"--disk-reserve-mib": "64", "--disk-pause-mib": "32"}


def spare_disks(folder: Path) -> list[Path]:
    """For Node's `extra_disks`: DISK and LOG_DISK."""
    paths = [folder / "spare.img", folder / "log.img"]
    for path, size in zip(paths, SPARE_BYTES, strict=True):
        with open(path, "wb") as file:
            file.truncate(size)
    return paths


@dataclass(frozen=True)
class Limit:
    """Of a project, in all; 0 is none at all."""

    blocks_kib: int = 0
    inodes: int = 0


@dataclass(frozen=True)
class Usage:
    blocks_kib: int
    inodes: int


class StateDisk:
    def __init__(self, cluster: Cluster, *, mount: str = "", logged_from: str = "") -> None:
        """mount: options. logged_from: all writes are logged on LOG_DISK from the empty file system on, of which
        this file of the node's becomes a copy; below USUAL is a good place."""
        self._cluster = cluster
        self._run = cluster.node.run
        self._mount = ",".join(filter(None, ("noatime", mount)))
        self._logged_from = logged_from
        self._flags = list(cluster.agent_flags)
        self._sectors = SPARE_BYTES[0] // SECTOR

    def __enter__(self) -> StateDisk:
        cluster = self._cluster
        cluster.expect_no_leaks()
        cluster.kill_agent()
        self._run(f"umount {STATE} && mkdir -p {USUAL} && mount -o noatime {USUAL_DISK} {USUAL}")
        self._run(f"mkfs.xfs -q -f -K -m reflink=1 {DISK}", seconds=120)
        table = self._table("linear", DISK, "0")
        if self._logged_from:
            self._run(["cp", "--sparse=always", DISK, self._logged_from], seconds=120)
            table = self._table("log-writes", DISK, LOG_DISK)
        self._run(["modprobe", "-a", "dm_log_writes", "dm_flakey"])
        self._run(["dmsetup", "create", NAME], stdin=table)
        self._run(f"mount -o {self._mount} {DEVICE} {STATE} && mkdir -p {STATE}/images")
        self._run(f"cp --sparse=always {cluster.layout.parts}/images/busybox.img {STATE}/images/")
        kept = [flag for flag in self._flags if flag.split("=")[0] not in FLAGS]
        cluster.agent_flags = kept + [f"{name}={value}" for name, value in FLAGS.items()]
        cluster.start_agent()
        return self

    def __exit__(self, *_: object) -> None:
        cluster = self._cluster
        cluster.agent_flags = self._flags
        cluster.kill_agent()
        self.end_device()
        self._run(f"umount {USUAL} && mount -o noatime {USUAL_DISK} {STATE}")
        cluster.start_agent()
        cluster.wait_node_ready()

    def end_device(self) -> None:
        """The agent does not run, and no sandbox is there."""
        self._run(f"if mountpoint -q {STATE}; then umount {STATE}; fi")
        self._run(f"if [ -e {DEVICE} ]; then dmsetup remove --retry {NAME}; fi")

    # --- full -------------------------------------------------------------------------------------

    def confine(self, folders: Mapping[str, int]) -> None:
        """Each folder with all below it, now and later, becomes a project of that number."""
        # One call each: xfs_quota puts every folder that it was told of into the project that it is told of last.
        calls = (f"xfs_quota -x -c 'project -s -p {folder} {number}' {STATE}" for folder, number in folders.items())
        self._run(" && ".join(calls), seconds=120)

    def usage(self) -> dict[int, Usage]:
        """XFS takes back what was removed in the background: as soon as it is through with that."""
        last: dict[int, Usage] = {}

        def settled() -> dict[int, Usage] | None:
            nonlocal last
            self._run(["stat", "-f", STATE])  # makes it begin
            before, last = last, self._usage()
            return last if last == before else None

        return eventually(settled, "the usage of projects settles", 30)

    def _usage(self) -> dict[int, Usage]:
        blocks, inodes = (self._used(kind) for kind in "bi")
        return {project: Usage(blocks[project], inodes.get(project, 0)) for project in blocks}

    def limit(self, limits: Mapping[int, Limit]) -> None:
        """XFS answers ENOSPC where a project's limit is met, as where the disk is full."""
        self._quota(
            f"limit -p bhard={limit.blocks_kib}k ihard={limit.inodes} {project}" for project, limit in limits.items()
        )

    def unlimited(self, projects: Iterable[int]) -> None:
        self.limit({project: Limit() for project in projects})

    def _used(self, kind: str) -> dict[int, int]:
        lines = self._cluster.node.output(["xfs_quota", "-x", "-c", f"report -p{kind}nN", STATE]).splitlines()
        return {int(words[0][1:]): int(words[1]) for words in map(str.split, lines) if words}

    def _quota(self, commands: Iterable[str]) -> None:
        words = [word for command in commands for word in ("-c", command)]
        self._run(["xfs_quota", "-x", *words, STATE], seconds=120)

    # --- faulty -----------------------------------------------------------------------------------

    def break_writes(self) -> None:
        """Whatever is written fails, from now on, but XFS's own log: it would shut the file system down."""
        start, length = self._log_area()
        faulty = [(0, start), (start + length, self._sectors - start - length)]
        lines = [f"{at} {sectors} flakey {DISK} {at} 0 3600 1 error_writes" for at, sectors in faulty]
        self._swap("\n".join([lines[0], f"{start} {length} linear {DISK} {start}", lines[1]]))

    def mend(self) -> None:
        self._swap(self._table("linear", DISK, "0"))

    def _swap(self, table: str) -> None:
        # Nothing is flushed on the way: what is dirty shall meet the new table.
        script = f"dmsetup suspend --noflush --nolockfs {NAME} && dmsetup load {NAME} && dmsetup resume {NAME}"
        self._run(script, stdin=table)

    def _table(self, *words: str) -> str:
        return f"0 {self._sectors} {' '.join(words)}"

    def _log_area(self) -> tuple[int, int]:
        """In sectors, from the superblock (fs/xfs/libxfs/xfs_format.h: struct xfs_dsb)."""
        block = self._run(["dd", f"if={DISK}", "bs=512", "count=1", "status=none"], text=False).stdout
        magic, block_bytes = struct.unpack_from(">4sI", block)
        assert magic == b"XFSB"
        (log_start,) = struct.unpack_from(">Q", block, 48)
        (group_blocks,) = struct.unpack_from(">I", block, 84)
        (log_blocks,) = struct.unpack_from(">I", block, 96)
        group_bits = block[124]
        first = (log_start >> group_bits) * group_blocks + (log_start & ((1 << group_bits) - 1))
        return first * block_bytes // SECTOR, log_blocks * block_bytes // SECTOR

    # --- logged -----------------------------------------------------------------------------------

    def mark(self, word: str) -> None:
        """In the log of writes: all that is durable by now stands before it."""
        self._run(["dmsetup", "message", NAME, "0", "mark", word])
