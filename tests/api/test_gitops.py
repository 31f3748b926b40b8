"""Manifests that are applied again and again, replaced and restored: what others write does not show as a difference, and what
comes with a copy does no harm."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import condition, sandbox, template
from test_controller import FINALIZER, GONE, LEASE_SECONDS, SANDBOXES, world  # noqa: F401

from bed.eventually import eventually
from bed.product import ROOT, ProductError, program

TEMPLATES = "snapshottemplates"
SETTLED, SUSPENDED_FOR = "dormouse.dev/source-settled", "dormouse.dev/suspended-for"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
WAYS = {"as clients apply": (), "as servers apply": ("--server-side",)}


@pytest.fixture
def kubectl(control_plane):
    return control_plane.kubectl


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_a_diff_after_an_apply_is_empty(kubectl, control_plane, admin, example, way):
    def differs() -> str:
        return kubectl("diff", *way, "-f", str(example), check=False).stdout

    try:
        plugin = program("kubectl-dormouse")
    except ProductError as error:
        pytest.skip(str(error))
    try:
        kubectl("apply", *way, "-f", str(example))
        assert differs() == "", "at once"
        names = kubectl("get", "-f", str(example), "-o", "name").stdout.split()
        ours = [name.partition("/")[2] for name in names if name.startswith("sandbox.")]
        assert ours
        environment = {**os.environ, "KUBECONFIG": str(control_plane.admin_kubeconfig)}
        for wish in ("suspend", "resume"):
            subprocess.run([str(plugin), wish, *ours], check=True, timeout=60, env=environment, capture_output=True)
            assert differs() == "", f"after a {wish} by the plugin"
        for name in ours:
            # As the controller does it for one that is idle, and the agent says what came of it.
            mark = {"metadata": {"annotations": {"dormouse.dev/idle-suspend": "uid/2"}}, "spec": {"operatingMode": "Suspended"}}
            assert admin.merge(SANDBOXES, name, mark).ok
            asleep = [condition("Suspended", reason="SuspendedByUser"), condition("Ready", "False", reason="SuspendedByUser")]
            assert admin.apply_status(SANDBOXES, name, {"phase": "Suspended", "conditions": asleep}).ok
        assert differs() == "", "after an idle suspend"
        kubectl("apply", *way, "-f", str(example))
        modes = {admin.get(SANDBOXES, name).body["spec"]["operatingMode"] for name in ours}
        assert modes == {"Suspended"}, "an apply wakes nobody"
    finally:
        kubectl("delete", "--ignore-not-found", "--wait=false", "-f", str(example))


def replaced(world, plural: str, name: str) -> None:  # noqa: F811
    """As `kubectl replace` and a restore do it: from a manifest without our finalizer."""
    body = world.admin.get(plural, name).body
    body["metadata"].pop("finalizers")
    answer = world.admin.client.request("PUT", world.admin.path(plural, name), body)
    assert answer.ok, answer.message


def test_a_finalizer_that_a_replace_took_away_is_back_at_once(world):  # noqa: F811
    world.fleet.add("n1")
    world.runner.start()
    world.apply("web")
    world.placed("web")
    world.report("web", condition("Ready", reason="Ready"), phase="Running")
    replaced(world, SANDBOXES, "web")
    eventually(lambda: FINALIZER in world.get("web")["metadata"].get("finalizers", []), "it is back", 5)
    world.admin.delete(SANDBOXES, "web")
    assert world.get("web")["metadata"]["deletionTimestamp"], "its node is asked first"


def test_a_copy_with_the_word_that_a_node_is_gone_goes_there_all_the_same(world):  # noqa: F811
    world.fleet.add("n1")
    world.runner.start()
    copy = sandbox("copy")
    copy["metadata"]["annotations"] = {GONE: "n1", "example.com/kept": "yes"}
    assert world.admin.create(SANDBOXES, copy).ok
    world.placed("copy", "n1")
    assert world.get("copy")["metadata"]["annotations"] == {"example.com/kept": "yes"}
    world.report("copy", condition("Ready", reason="Ready"), phase="Running")
    world.fleet.stop_agent("n1")
    eventually(lambda: world.reason("copy", "Ready") == "Unknown NodeLost", "its node is lost", LEASE_SECONDS + 10)
    assert world.node_of("copy") == "n1", "nobody has said that its node is gone"


def test_a_copied_template_settles_its_source_as_if_it_had_no_mark(world):  # noqa: F811
    world.fleet.add("n1")
    world.runner.start()
    source = sandbox("s1")
    source["metadata"]["annotations"] = {SUSPENDED_FOR: "another-template"}
    assert world.admin.create(SANDBOXES, source).ok
    world.placed("s1")
    copy = template("copy", sourceAfterCapture="Suspend")
    copy["metadata"]["annotations"] = {SETTLED: "another-template"}
    assert world.admin.create(TEMPLATES, copy).ok
    eventually(lambda: world.admin.get(TEMPLATES, "copy").body.get("status", {}).get("nodeName"), "it is placed", 15)
    captured = {
        "readyToUse": True,
        "phase": "Ready",
        "creationTime": "2026-01-02T03:04:05Z",
        "sourceUID": world.get("s1")["metadata"]["uid"],
        "conditions": [condition("Ready", reason="Ready")],
    }
    assert world.admin.apply_status(TEMPLATES, "copy", captured).ok
    eventually(lambda: world.get("s1")["spec"]["operatingMode"] == "Suspended", "its source sleeps", 15)
    uid = world.admin.get(TEMPLATES, "copy").body["metadata"]["uid"]
    eventually(lambda: world.admin.get(TEMPLATES, "copy").body["metadata"]["annotations"][SETTLED] == uid, "settled once", 15)
    replaced(world, TEMPLATES, "copy")
    eventually(lambda: FINALIZER in world.admin.get(TEMPLATES, "copy").body["metadata"].get("finalizers", []), "it is back", 5)
