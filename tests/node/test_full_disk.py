"""No room, and no fsync, at each write of a suspend and of a capture: the sandbox runs on and says so, nothing half is
left, and nobody else notices. The fake VMM; a real ENOSPC of a real XFS.

A limit of an XFS project is met at an exact block and an exact file, is answered by ENOSPC, and is one directory's: so
many sandboxes meet each its own full disk at once. (XFS reserves blocks for the largest directory that there might be when
a file is made, quota or not: of a small file it is the making that fails for want of blocks, never the writing.)
"""

from __future__ import annotations

import pytest

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.manifests import TEMPLATES, clone, template
from bed.sleepers import Sleepers
from bed.state_disk import STATE, Limit, StateDisk

FILES = 9  # sandboxes that may have so many more files, from none on
BLOCKS = 9  # and so many more blocks, from none to what is enough
RESERVED_KIB = 512  # what XFS wants to be free when it makes the last file
FIRST_PROJECT, TEMPLATES_PROJECT = 101, 900
# The files that a suspend makes, as errors name them.
MADE = {"record.json", "memory", "config.json", "state.json", "store.cow", "manifest.json"}


@pytest.fixture(scope="module")
def state(cluster):
    with StateDisk(cluster, mount="prjquota") as disk:
        yield disk


def sweep(bed: Sleepers, state: StateDisk, names: list[str], enough_kib: int) -> list[str]:
    """Each of `names` meets a full disk one file, or one share of `enough_kib`, later than the one before; all are
    asleep afterwards. What they said."""
    projects = {name: FIRST_PROJECT + at for at, name in enumerate(names)}
    state.confine({bed.folder(name): project for name, project in projects.items()})
    used = state.usage()
    files, blocks = names[:FILES], names[FILES:]
    limits = {projects[name]: Limit(inodes=used[projects[name]].inodes + more) for more, name in enumerate(files)}
    for at, name in enumerate(blocks):
        more = enough_kib * at // (len(blocks) - 1)
        limits[projects[name]] = Limit(blocks_kib=used[projects[name]].blocks_kib + more)
    state.limit(limits)
    said = bed.try_to_suspend(*names)
    bed.expect_neighbour_unharmed()
    assert all("ENOSPC" in message for message in said.values()), said
    assert {files[0], blocks[0]} <= said.keys(), "without any room"
    assert blocks[-1] not in said, "with room enough"
    state.unlimited(projects.values())
    # The wish is taken back and made again: the next try is at once.
    bed.wish("Running", *names)
    bed.expect_memory(*names)
    bed.wish("Suspended", *names)
    return list(said.values())


def test_a_suspend_without_room_at_any_write_runs_on(cluster, state, sandboxes):
    names = [f"full-{number}" for number in range(FILES + BLOCKS)]
    bed = Sleepers(cluster, sandboxes, [*names, "probe"])
    bed.wish("Suspended", "probe")
    whole = int(cluster.node.output(["du", "-sk", bed.folder("probe")]).split()[0])
    said = sweep(bed, state, names, whole + RESERVED_KIB)
    failed = {name for name in MADE if any(f"/{name}" in message for message in said)}
    assert failed == MADE, f"no suspend failed at {sorted(MADE - failed)}: {said}"
    assert any("write at offset" in message for message in said), said
    # Over a reflink of the memory that it woke from: few pages are written, and other blocks are met.
    bed.wish("Running", *names)
    bed.expect_memory(*names)
    bed.remember(*names, first=100)
    said = sweep(bed, state, names, whole + RESERVED_KIB)
    assert any("/memory" in message for message in said), said
    bed.wish("Running", *names[:2], "probe")
    bed.expect_memory(*names[:2], "probe")
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
        assert "ENOSPC" in said[-1]
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
