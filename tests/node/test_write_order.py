"""What reaches the disk in which order: every write of a sandbox's life is logged by dm-log-writes, and at each flush we
look at what a power cut right there would have left. A cut of the machine's power says little of that: what QEMU had got
from its kernel was whole each time.

At each point the file system is mounted and whatever record is there must match its checksum, the generation or template
that it names must be whole, byte for byte what was committed, with memory and disk of one instant; what was said to be
asleep is asleep, with that memory; what runs has on its disk all that its guest has fsynced, and no record ever names a
memory older than that (invariant 11).

It bites: with the manifest written without its fsync (Seal), half of the points were wrong: records that name a
generation whose manifest is empty. Not every fsync can be seen to be missing: that of the memory file is done again by
those that follow it, as the dump has begun to write back long before and each of them flushes the disk.
"""

from __future__ import annotations

import json
import os

import pytest

from bed.leaks import short_id
from bed.manifests import TEMPLATES, template
from bed.sleepers import Sleepers
from bed.state_disk import LOG_DISK, STATE, USUAL, StateDisk

REPLAY = f"{USUAL}/replay"
# Points to look at: a sample, where it is less than all.
AT_MOST = int(os.environ.get("DORMOUSE_CUTS", "24"))
NAME = "ordered"


@pytest.fixture
def state(cluster):
    cluster.node.run(["mkdir", "-p", "/var/lib/dormouse/replay"])
    with StateDisk(cluster, logged_from=f"{REPLAY}/disk.img") as disk:
        yield disk
    cluster.node.run(["rm", "-rf", "/var/lib/dormouse/replay"])


class Life:
    """One sandbox, and what the world knows of it."""

    def __init__(self, cluster, state, sandboxes) -> None:
        self.cluster, self.state = cluster, state
        self.bed = Sleepers(cluster, sandboxes, [NAME], neighbour=False)
        self.uid = self.bed.uids[NAME]
        self.gists: dict[str, dict] = {}

    def write(self, number: int) -> None:
        """The guest, into its memory and onto its disk."""
        self.bed.remember(NAME, first=number)
        self.cluster.node.run(["/opt/dormouse/bed/mark-disk", f"dormouse-{short_id(self.uid)}-root", str(number)])
        self.state.mark(f"disk-{number}")

    def sleep(self, number: int, generation: int) -> None:
        self.bed.wish("Suspended", NAME)
        self.state.mark(f"asleep-{number}")
        self.keep(f"{self.uid}/{generation}", f"{self.bed.folder(NAME)}/gen-{generation}")

    def wake(self) -> None:
        self.state.mark("waking")
        self.bed.wish("Running", NAME)

    def keep(self, name: str, folder: str) -> None:
        self.gists[name] = json.loads(self.cluster.node.output(["/opt/dormouse/bed/gist", folder]))


def test_a_power_cut_at_any_flush_leaves_what_was_promised(cluster, state, sandboxes):
    life = Life(cluster, state, sandboxes)
    life.write(1)
    life.sleep(1, generation=1)
    life.wake()
    life.write(2)
    cluster.apply(template("of-it", NAME))
    uid = cluster.wait_template("of-it")["metadata"]["uid"]
    state.mark("template-2")
    life.keep(uid, f"{STATE}/templates/{uid}")
    life.write(3)
    life.sleep(3, generation=2)
    state.mark("template-0")
    cluster.delete("of-it", plural=TEMPLATES)
    cluster.wait_gone("of-it", plural=TEMPLATES)
    life.wake()
    life.bed.expect_memory(NAME)
    state.mark("deleting")
    cluster.delete(NAME)
    cluster.wait_gone(NAME)
    state.mark("gone")
    expected = {"gists": life.gists, "at_most": AT_MOST}
    cluster.node.write(f"{REPLAY}/expected.json", json.dumps(expected))
    command = ["/opt/dormouse/bed/check-write-order", LOG_DISK, f"{REPLAY}/disk.img", REPLAY, f"{REPLAY}/expected.json"]
    found = json.loads(cluster.node.output(command, seconds=900))
    print(found)
    assert found["wrong"] == []
    seen = " ".join(found["states"])
    assert all(state in seen for state in ("awake 1", "asleep 1", "awake 2", "template", "asleep 3")), found
