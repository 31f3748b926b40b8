"""No room, and no fsync, at each write of a suspend and of a capture: the sandbox runs on and says so, nothing half is
left, and nobody else notices. The fake VMM; a real ENOSPC of a real XFS.

A limit of an XFS project is met at an exact block and an exact file, is answered by ENOSPC, and is one directory's: so
many sandboxes meet each its own full disk at once. (XFS reserves blocks for the largest directory that there might be when
a file is made, quota or not: of a small file it is the making that fails for want of blocks, never the writing.)
"""

from __future__ import annotations

import os

import pytest

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.manifests import TEMPLATES, clone, sandbox, template
from bed.sleepers import Sleepers
from bed.state_disk import STATE, Limit, StateDisk

FILES = 11  # sandboxes that may have so many more files, from none on
BLOCKS = 5  # and so many more blocks, from none to what is enough
RESERVED_KIB = 512  # what XFS wants to be free when it makes the last file
ROUGH_FILES = 3  # of those that do it a second time
LATER_KIB = 2048  # of pages that were holes (guest-memory)
# In the power tier; a suspend that follows a wake meets a full disk there, too.
THOROUGH = "DORMOUSE_CUTS" in os.environ
FIRST_PROJECT, TEMPLATES_PROJECT = 101, 900
# The files that a suspend makes, as errors name them.
MADE = {"record.json", "memory", "config.json", "state.json", "store.cow", "manifest.json"}


@pytest.fixture(scope="module")
def state(cluster):
    with StateDisk(cluster, mount="prjquota") as disk:
        yield disk


def sweep(bed: Sleepers, state: StateDisk, names: list[str], files: int, enough_kib: int) -> list[str]:
    """Each of `names` meets a full disk later than the one before: one file later the first `files`, one share of
    `enough_kib` the others. All run afterwards, with room. What those said that failed."""
    projects = {name: FIRST_PROJECT + at for at, name in enumerate(names)}
    state.confine({bed.folder(name): project for name, project in projects.items()})
    used = state.usage()
    few_files, few_blocks = names[:files], names[files:]
    limits = {projects[name]: Limit(inodes=used[projects[name]].inodes + more) for more, name in enumerate(few_files)}
    for at, name in enumerate(few_blocks):
        more = enough_kib * at // (len(few_blocks) - 1)
        limits[projects[name]] = Limit(blocks_kib=used[projects[name]].blocks_kib + more)
    state.limit(limits)
    said = bed.try_to_suspend(*names)
    bed.expect_neighbour_unharmed()
    assert all("No space left" in message for message in said.values()), said
    assert {few_files[0], few_blocks[0]} <= said.keys(), "without any room"
    assert few_blocks[-1] not in said, "with room enough"
    state.unlimited(projects.values())
    bed.wish("Running", *names)
    bed.expect_memory(*names)
    return list(said.values())


def test_a_suspend_without_room_at_any_write_runs_on(cluster, state, sandboxes):
    names = [f"full-{number}" for number in range(FILES + BLOCKS)]
    bed = Sleepers(cluster, sandboxes, [*names, "probe"])
    bed.wish("Suspended", "probe")
    whole = int(cluster.node.output(["du", "-sk", bed.folder("probe")]).split()[0])
    said = sweep(bed, state, names, FILES, whole + RESERVED_KIB)
    failed = {name for name in MADE if any(f"/{name}" in message for message in said)}
    assert failed == MADE, f"no suspend failed at {sorted(MADE - failed)}: {said}"
    assert any("write at offset" in message for message in said), said
    # Over the memory that it woke from: what it takes are pages that were holes.
    some = names[::2] if THOROUGH else [names[0], names[-1]]
    bed.wish("Suspended", *some)
    bed.wish("Running", *some, "probe")
    bed.expect_memory(*names, "probe")
    bed.remember(*some, first=100)
    if THOROUGH:
        said = sweep(bed, state, some, ROUGH_FILES, 2 * LATER_KIB)
        assert any("/memory" in message for message in said), said
        bed.wish("Suspended", *some)
        bed.wish("Running", *some[:3])
    bed.expect_memory(*some[:3])
    bed.expect_neighbour_unharmed()


def test_a_capture_without_room_at_any_write_leaves_its_source_running(cluster, state, sandboxes):
    bed = Sleepers(cluster, sandboxes, ["source"])
    before = bed.identity("source")
    folder = f"{STATE}/templates"
    state.confine({folder: TEMPLATES_PROJECT})
    used = state.usage()[TEMPLATES_PROJECT]
    limits = [Limit(inodes=used.inodes + more) for more in range(7)]
    limits += [Limit(blocks_kib=used.blocks_kib + more) for more in (4, 600, 1200)]
    said = []
    for number, limit in enumerate(limits):
        name = f"no-room-{number}"
        state.limit({TEMPLATES_PROJECT: limit})
        cluster.apply(template(name, "source"))

        def failed(name=name) -> str:
            ready = condition_of(cluster.get(name, TEMPLATES), "Ready")
            return ready["message"] if ready.get("reason") == "SnapshotFailed" else ""

        said.append(eventually(failed, f"{name} fails at {limit}", 60, cluster.agent_log))
        cluster.delete(name, plural=TEMPLATES)
        cluster.wait_gone(name, plural=TEMPLATES)
        assert "No space left" in said[-1]
    made = (MADE - {"record.json"}) | {"template.json"}
    assert {name for name in made if any(f"/{name}" in message for message in said)} == made, said
    assert any("write at offset" in message for message in said), said
    eventually(lambda: not bed.half_made(), "nothing half is left", 30, lambda: str(bed.half_made()))
    assert bed.identity("source") == before
    bed.expect_answers("source")
    bed.expect_neighbour_unharmed()
    state.unlimited([TEMPLATES_PROJECT])
    sandboxes(template("roomy", "source"))
    cluster.wait_template("roomy")
    bed.memory["copy"] = bed.memory["source"]
    bed.remember("source", first=50)
    sandboxes(clone("copy", "roomy"))
    cluster.wait_ready("copy")
    bed.uids["copy"] = cluster.get("copy")["metadata"]["uid"]
    bed.expect_memory("copy", "source")


def test_a_suspend_whose_fsync_fails_is_never_committed(cluster, state, sandboxes):
    points = {"capture.memory": "memory", "capture.sync": "manifest", "record.suspended": "record"}
    bed = Sleepers(cluster, sandboxes, points.values())
    before = {name: bed.identity(name) for name in bed.names}
    cluster.arm(
        ";".join(f"agent.step.before.{point}@default/{name}=1*delay(5000)" for point, name in points.items())
    )
    cluster.wish("Suspended", *bed.names)
    wanted = {f"agent.step.before.{point} default/{name}" for point, name in points.items()}
    eventually(lambda: wanted <= set(cluster.failpoints_hit()), "each is about to write", 60, cluster.agent_log)
    state.break_writes()
    try:
        for name in bed.names:
            told = cluster.wait_reason(name, "Suspended", "SnapshotFailed", 60)
            assert "EIO" in condition_of(told, "Suspended")["message"]
            cluster.wait_for(name, lambda found: bed.is_in(found, "Running"), "it runs on")
    finally:
        state.mend()
    assert {name: bed.identity(name) for name in bed.names} == before
    bed.expect_answers(*bed.names)
    bed.expect_memory(*bed.names)
    bed.expect_neighbour_unharmed()
    eventually(lambda: not bed.half_made(), "nothing half is left", 30, lambda: str(bed.half_made()))
    bed.wish("Running", *bed.names)
    bed.wish("Suspended", *bed.names)
    bed.wish("Running", *bed.names)
    bed.expect_memory(*bed.names)
