"""What dormouse-controller does for SnapshotTemplates, against a real API server; the test plays the agents."""

from __future__ import annotations

import time

import pytest
from conftest import condition, template
from test_controller import FINALIZER, GONE, LEASE_SECONDS, SANDBOXES, world  # noqa: F401

from bed.eventually import eventually

TEMPLATES = "snapshottemplates"
SETTLED = "dormouse.dev/source-settled"


class Templates:
    """A user's and an agent's view of templates, in the world of the controller's tests."""

    def __init__(self, world) -> None:
        self.world, self.admin = world, world.admin

    def apply(self, name: str = "warm", **spec) -> None:
        answer = self.admin.create(TEMPLATES, template(name, **spec))
        assert answer.status == 201, answer.message

    def get(self, name: str = "warm") -> dict:
        answer = self.admin.get(TEMPLATES, name)
        return answer.body if answer.ok else {}

    def status(self, name: str = "warm") -> dict:
        return self.get(name).get("status", {})

    def reason(self, name: str = "warm", kind: str = "Ready") -> str:
        found = [one for one in self.status(name).get("conditions", []) if one["type"] == kind]
        return f"{found[0]['status']} {found[0]['reason']}" if found else ""

    def message(self, name: str = "warm") -> str:
        return next((one["message"] for one in self.status(name).get("conditions", []) if one["type"] == "Ready"), "")

    def waits(self, message: str, name: str = "warm") -> None:
        eventually(
            lambda: self.reason(name) == "False SourceNotReady" and message in self.message(name),
            f"{name} waits: {message}", 15, lambda: str(self.status(name)),
        )  # fmt: skip

    def placed(self, name: str = "warm") -> str:
        return eventually(lambda: self.status(name).get("nodeName"), f"{name} has a node", 15)

    def gone(self, name: str = "warm", seconds: float = 15) -> None:
        eventually(lambda: not self.get(name), f"{name} is gone", seconds, lambda: str(self.get(name)))

    def settled(self, name: str = "warm") -> None:
        def look() -> bool:
            return self.get(name)["metadata"].get("annotations", {}).get(SETTLED) == self.get(name)["metadata"]["uid"]

        eventually(look, "the source is settled", 15)

    def report(self, *more: dict, name: str = "warm", **status) -> None:
        """As the agent that has captured it: of the object's generation as it is now."""
        seen = self.get(name)
        said = [condition("Ready", reason="Ready"), *more]
        whole = {
            "phase": "Ready",
            "readyToUse": True,
            "references": 0,
            "creationTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "conditions": [{**one, "observedGeneration": seen["metadata"]["generation"]} for one in said],
            **status,
        }
        answer = self.admin.apply_status(TEMPLATES, name, whole)
        assert answer.ok, answer.message

    def captured(self, name: str = "warm") -> None:
        self.report(name=name, sourceUID=self.world.get("s1")["metadata"]["uid"])

    def source(self) -> None:
        """Makes the sandbox s1, on the node n1."""
        self.world.fleet.add("n1")
        self.world.apply("s1")

    def mode(self) -> str:
        return self.world.get("s1")["spec"]["operatingMode"]

    def wake_source(self) -> None:
        assert self.admin.merge(SANDBOXES, "s1", {"spec": {"operatingMode": "Running"}}).ok

    def still(self, look, seconds: float = 1.5) -> None:
        """That something does not happen is seen by another thing happening meanwhile, and a moment."""
        self.apply("witness", source={"sandbox": {"name": "nobody"}})
        self.waits("there is no Sandbox nobody", "witness")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert look()
            time.sleep(0.1)


@pytest.fixture
def templates(world):  # noqa: F811
    return Templates(world)


# --- where it is captured ---------------------------------------------------------------------------


def test_a_template_waits_for_its_source_and_follows_it_to_its_node(world, templates):  # noqa: F811
    world.runner.start()
    templates.apply()
    templates.waits("there is no Sandbox s1 in this namespace yet")
    assert "finalizers" not in templates.get()["metadata"], "it can be deleted at once"
    assert templates.status()["phase"] == "Pending"
    world.apply("s1")
    templates.waits("the Sandbox s1 has no node yet")
    world.fleet.add("n1")
    assert templates.placed() == "n1" == world.node_of("s1")
    assert templates.get()["metadata"]["finalizers"] == [FINALIZER]
    assert templates.reason() == "False Capturing" and templates.status()["phase"] == "Pending"
    eventually(lambda: {"SourceNotReady", "Scheduled"} <= set(world.events("warm")), "its events are there", 10)


def test_it_fails_at_its_deadline_and_is_not_placed_afterwards(world, templates):  # noqa: F811
    world.runner.start()
    templates.apply(failureDeadline="3s")
    eventually(lambda: templates.status().get("phase") == "Failed", "it fails", 15)
    assert templates.reason(kind="Failed") == "True SourceNotReady"
    assert templates.reason() == "False SourceNotReady"
    error = templates.status()["error"]
    assert "failureDeadline (3 s): there is no Sandbox s1" in error["message"] and error["time"]
    templates.source()
    world.placed("s1")
    templates.still(lambda: templates.status().get("nodeName") is None)
    templates.admin.delete(TEMPLATES, "warm")
    assert not templates.get(), "nothing holds it"


@pytest.mark.parametrize("point", ["before-finalizer", "after-finalizer", "after-node-name"])
def test_killed_at_any_point_of_placing_it_the_next_one_goes_on(world, templates, point):  # noqa: F811
    first = world.runner.start("first", failpoints=f"controller.template.{point}=1*kill")
    templates.source()
    templates.apply()
    eventually(lambda: not first.running(), "it is killed", 15, first.log_tail)
    assert templates.status().get("nodeName", "") == ("n1" if point == "after-node-name" else "")
    world.runner.start("second")
    assert templates.placed() == "n1"
    assert templates.get()["metadata"]["finalizers"] == [FINALIZER]


# --- its end ----------------------------------------------------------------------------------------


def test_a_template_that_is_deleted_goes_when_its_agent_has_released_it(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply()
    templates.placed()
    released = condition("Released", reason="Released")
    before = [{**released, "observedGeneration": templates.get()["metadata"]["generation"]}]
    templates.admin.delete(TEMPLATES, "warm")
    # Of the spec before the deletion, it says nothing about the deletion.
    assert templates.admin.apply_status(TEMPLATES, "warm", {"conditions": before}).ok
    templates.still(lambda: templates.get() != {})
    templates.report(released, readyToUse=False, phase="Deleting")
    templates.gone()


def test_a_template_that_was_never_placed_goes_at_once(world, templates):  # noqa: F811
    first = world.runner.start("first", failpoints="controller.template.after-finalizer=1*kill")
    templates.source()
    templates.apply()
    eventually(lambda: not first.running(), "it is killed", 15, first.log_tail)
    templates.admin.delete(TEMPLATES, "warm")
    assert templates.get(), "the finalizer holds it"
    world.runner.start("second")
    templates.gone()


def test_a_persons_word_ends_a_deletion_on_a_lost_node(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply()
    templates.placed()
    templates.admin.delete(TEMPLATES, "warm")
    assert templates.admin.merge(TEMPLATES, "warm", {"metadata": {"annotations": {GONE: "n1"}}}).ok
    eventually(lambda: "NodeNotLost" in world.events("warm"), "its agent is alive", 10)
    assert templates.get()
    world.fleet.stop_agent("n1")
    templates.gone(seconds=2 * LEASE_SECONDS + 15)


def test_it_expires_when_nothing_has_used_it_for_its_ttl(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply(ttl="3s")
    templates.placed()
    templates.report(condition("InUse", reason="InUse"), references=1)
    templates.still(lambda: "deletionTimestamp" not in templates.get()["metadata"], seconds=4)
    templates.report(condition("InUse", "False", reason="NotInUse"))
    eventually(lambda: "deletionTimestamp" in templates.get()["metadata"], "it expires", 15)
    eventually(lambda: "Expired" in world.events("warm"), "an event says so", 10)
    templates.report(condition("Released", reason="Released"), readyToUse=False, phase="Deleting")
    templates.gone()


# --- what becomes of the source ---------------------------------------------------------------------


def test_the_source_is_suspended_once(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply(sourceAfterCapture="Suspend")
    templates.placed()
    assert templates.mode() == "Running", "not before it is captured"
    templates.captured()
    templates.settled()
    assert templates.mode() == "Suspended"
    eventually(lambda: "Suspended" in world.events("warm"), "an event says so", 10)
    templates.wake_source()
    templates.captured()
    templates.still(lambda: templates.mode() == "Running")


def test_killed_between_the_source_and_the_mark_it_is_not_suspended_twice(world, templates):  # noqa: F811
    first = world.runner.start("first", failpoints="controller.template.after-source=1*kill")
    templates.source()
    templates.apply(sourceAfterCapture="Suspend")
    templates.placed()
    templates.captured()
    eventually(lambda: not first.running(), "it is killed", 15, first.log_tail)
    assert templates.mode() == "Suspended"
    templates.wake_source()
    world.runner.start("second")
    templates.settled()
    assert templates.mode() == "Running", "what the user has said since"


def test_the_source_is_deleted_and_its_successor_is_not(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply("one", sourceAfterCapture="Delete")
    templates.apply("two", sourceAfterCapture="Delete")
    templates.placed("one"), templates.placed("two")
    uid = world.get("s1")["metadata"]["uid"]
    templates.report(name="one", sourceUID=uid)
    eventually(lambda: "deletionTimestamp" in world.get("s1").get("metadata", {}), "it is deleted", 15)
    templates.settled("one")
    world.report("s1", condition("Released", reason="Released"))
    world.gone("s1")
    world.apply("s1")
    templates.report(name="two", sourceUID=uid)
    templates.settled("two")
    assert "deletionTimestamp" not in world.get("s1")["metadata"]


def test_the_source_goes_on_where_nothing_else_was_asked(world, templates):  # noqa: F811
    world.runner.start()
    templates.source()
    templates.apply()
    templates.placed()
    templates.captured()
    templates.still(lambda: templates.mode() == "Running" and SETTLED not in str(templates.get()["metadata"]))
