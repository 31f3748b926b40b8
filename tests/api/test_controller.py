"""dormouse-controller against a real API server, with the chart's role; the test plays the agents."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone

import pytest
from conftest import NAMESPACE, condition, sandbox, sandbox_node

from bed import chart
from bed.controller import _free_port
from bed.daemons import Daemon
from bed.eventually import eventually
from bed.product import ProductError, program

SANDBOXES = "sandboxes"
FINALIZER = "dormouse.dev/node-cleanup"
GONE = "dormouse.dev/node-is-gone"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAMESPACE}/leases"
LEASE_SECONDS = 8  # a busy machine may keep the beats below waiting
SECOND_LEASE = ("--lease-duration=4s", "--renew-deadline=2s", "--retry-period=500ms")


class Fleet:
    """Nodes as their agents keep them: a SandboxNode, and a Lease that is renewed while the node is alive."""

    def __init__(self, admin) -> None:
        self._admin = admin
        self._alive: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def add(self, name: str, cpu: int = 4, images=("debian-12",), ready: bool = True, **spec) -> None:
        if self._admin.get("sandboxnodes", name).status == 404:
            assert self._admin.create("sandboxnodes", sandbox_node(name, **spec)).ok
        self.offer(name, cpu, images, ready)
        self._renew(name)
        self._alive.add(name)

    def offer(self, name: str, cpu: int = 4, images=("debian-12",), ready: bool = True) -> None:
        status = {
            "capacity": {"cpu": cpu, "memory": "64Gi", "disk": "100Gi"},
            "images": [{"name": image} for image in images],
            "conditions": [condition("Ready", "True" if ready else "False", "Ready")],
        }
        answer = self._admin.apply_status("sandboxnodes", name, status)
        assert answer.ok, answer.message

    def stop_agent(self, name: str) -> None:
        self._alive.discard(name)

    def start_agent(self, name: str) -> None:
        """Its Lease first: then it takes back what the controller has said of its SandboxNode."""
        self._renew(name)
        self._alive.add(name)
        self.offer(name)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(1):
            for name in list(self._alive):
                self._renew(name)

    def _renew(self, name: str) -> None:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": f"dormouse-node-{name}"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        }
        try:
            self._admin.client.apply(f"{LEASES}/dormouse-node-{name}", body, "dormouse-agent")
        except OSError:
            pass  # the API server is being restarted: a beat is missed


class Runner:
    """Controllers as processes of this test, each with its own log."""

    def __init__(self, control_plane, folder) -> None:
        self._control_plane = control_plane
        self._folder = folder
        self._kubeconfig = control_plane.controller_kubeconfig(folder / "controller.kubeconfig")
        self._started: list[Daemon] = []
        self.health_ports: dict[str, int] = {}

    def start(self, name: str = "one", *flags: str, failpoints: str = "", wait: bool = True) -> Daemon:
        """Without leader election unless the flags ask for it."""
        daemon = Daemon(name, self._folder)
        self.health_ports[name] = port = _free_port()
        election = [] if "--leader-elect" in flags else ["--leader-elect=false"]
        command = [
            str(program("dormouse-controller")), f"--kubeconfig={self._kubeconfig}", f"--lease-namespace={chart.NAMESPACE}",
            f"--health-address=127.0.0.1:{port}", f"--metrics-address=127.0.0.1:{_free_port()}",
            "--refusal-memory=3s", "--log-format=text", "--log-level=debug", *election, *flags,
        ]  # fmt: skip
        environment = {**os.environ, **({"DORMOUSE_FAILPOINTS": failpoints} if failpoints else {})}
        daemon.start(command, die_with_parent=True, env=environment)
        self._started.append(daemon)
        if wait:
            eventually(lambda: self.get("/readyz", name) == "ok", "it is ready", 20, daemon.log_tail)
        return daemon

    def get(self, path: str, name: str = "one") -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_ports[name]}{path}", timeout=5) as answer:
                return answer.read().decode().strip()
        except OSError:
            return ""

    def close(self) -> None:
        asked = [daemon for daemon in self._started if daemon.running()]
        codes = {daemon.name: daemon.stop(grace_seconds=10) for daemon in asked}
        reports = [report for daemon in self._started if (report := daemon.sanitizer_report())]
        assert not reports, reports[0]
        assert not any(codes.values()), f"asked to stop, they ended with {codes}"


class World:
    """What a user and the agents see and do."""

    def __init__(self, admin, fleet: Fleet, runner: Runner) -> None:
        self.admin, self.fleet, self.runner = admin, fleet, runner

    def apply(self, name: str, **spec) -> None:
        answer = self.admin.create(SANDBOXES, sandbox(name, **spec))
        assert answer.status == 201, answer.message

    def get(self, name: str) -> dict:
        answer = self.admin.get(SANDBOXES, name)
        return answer.body if answer.ok else {}

    def node_of(self, name: str) -> str:
        return self.get(name).get("status", {}).get("nodeName", "")

    def condition(self, name: str, kind: str = "Scheduled") -> dict:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {"status": "", "reason": "", "message": ""})

    def reason(self, name: str, kind: str = "Scheduled") -> str:
        one = self.condition(name, kind)
        return f"{one['status']} {one['reason']}"

    def node_reason(self, name: str) -> str:
        found = self.admin.get("sandboxnodes", name).body["status"]["conditions"]
        (ready,) = [one for one in found if one["type"] == "Ready"]
        return f"{ready['status']} {ready['reason']}"

    def placed(self, name: str, node: str = "", seconds: float = 15) -> str:
        return eventually(
            lambda: (found := self.node_of(name)) and (not node or found == node) and found,
            f"{name} is placed on {node or 'a node'}", seconds, lambda: str(self.get(name).get("status")),
        )  # fmt: skip

    def waits(self, name: str, reason: str, message: str = "") -> None:
        def look() -> bool:
            one = self.condition(name)
            return one["status"] == "False" and one["reason"] == reason and message in one["message"]

        eventually(look, f"{name} waits for {reason}", 25, lambda: str(self.get(name).get("status")))

    def report(self, name: str, *conditions: dict, **status) -> None:
        """As the agent of the sandbox's node: of the object's generation as it is now."""
        generation = self.get(name)["metadata"]["generation"]
        said = [{**one, "observedGeneration": generation} for one in conditions]
        answer = self.admin.apply_status(SANDBOXES, name, {"conditions": said, **status})
        assert answer.ok, answer.message

    def gone(self, name: str, seconds: float = 15) -> None:
        eventually(lambda: not self.get(name), f"{name} is gone", seconds, lambda: str(self.get(name)))

    def events(self, name: str) -> list[str]:
        listed = self.admin.client.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
        return [one["reason"] for one in listed.body["items"] if one["regarding"]["name"] == name]

    def wipe(self) -> None:
        for plural in ("snapshottemplates", SANDBOXES, "sandboxnodes"):
            for one in self.admin.client.get(self.admin.path(plural)).body["items"]:
                if one["metadata"].get("finalizers"):
                    self.admin.merge(plural, one["metadata"]["name"], {"metadata": {"finalizers": None}})
                self.admin.delete(plural, one["metadata"]["name"])
        for one in self.admin.client.get(LEASES).body["items"]:
            self.admin.client.delete(f"{LEASES}/{one['metadata']['name']}")


@pytest.fixture
def world(control_plane, admin, tmp_path):
    try:
        program("dormouse-controller")
    except ProductError as missing:
        pytest.skip(str(missing))
    fleet, runner = Fleet(admin), Runner(control_plane, tmp_path)
    world = World(admin, fleet, runner)
    world.wipe()
    try:
        yield world
        runner.close()
    finally:
        # A failed test's leases must not be kept alive under the next one.
        fleet.close()
        world.wipe()


# --- placement ----------------------------------------------------------------------------------


def test_a_sandbox_is_placed_with_its_finalizer_and_an_event(world):
    world.fleet.add("n1")
    world.runner.start()
    world.apply("web")
    assert world.placed("web") == "n1"
    seen = world.get("web")
    assert seen["metadata"]["finalizers"] == [FINALIZER]
    assert seen["status"]["phase"] == "Scheduled"
    assert world.reason("web") == "True Scheduled" and world.reason("web", "Ready") == "False Starting"
    eventually(lambda: "Scheduled" in world.events("web"), "the event is there", 10)


def test_it_waits_for_an_image_and_is_placed_when_a_node_has_it(world):
    world.fleet.add("n1", images=())
    world.runner.start()
    world.apply("web")
    world.waits("web", "ImageNotFound", "0/1 nodes: 1 without image debian-12")
    assert "finalizers" not in world.get("web")["metadata"], "it can be deleted at once"
    assert world.reason("web", "Ready") == "False ImageNotFound"
    world.fleet.offer("n1")
    world.placed("web")


def test_it_waits_for_a_node_for_a_fresh_lease_and_for_readiness(world):
    world.runner.start()
    world.apply("web")
    world.waits("web", "NoNode", "no SandboxNode yet")
    world.fleet.add("n1", ready=False)
    world.waits("web", "NoNode", "0/1 nodes: 1 not Ready")
    world.fleet.offer("n1")
    world.placed("web")


def test_a_selector_a_taint_and_a_cordon_keep_it_away(world):
    world.fleet.add("plain")
    world.fleet.add("tainted", taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    world.fleet.add("cordoned", unschedulable=True)
    assert world.admin.merge("sandboxnodes", "tainted", {"metadata": {"labels": {"disk": "fast"}}}).ok
    world.runner.start()
    world.apply("fast", nodeSelector={"disk": "fast"})
    world.waits("fast", "NoNode", "1 with taint team=a:NoSchedule that is not tolerated, 1 without label disk=fast")
    world.apply("tolerant", nodeSelector={"disk": "fast"}, tolerations=[{"key": "team", "value": "a"}])
    assert world.placed("tolerant") == "tainted"
    world.apply("any")
    assert world.placed("any") == "plain"


def test_labels_and_owner_come_from_the_kubernetes_node(world, control_plane):
    control_plane.create_node("kube-1", {"zone": "east"})
    world.fleet.add("kube-1")
    world.runner.start()
    world.apply("web", nodeSelector={"zone": "east"})
    assert world.placed("web") == "kube-1"
    node = world.admin.get("sandboxnodes", "kube-1").body["metadata"]
    uid = world.admin.client.get("/api/v1/nodes/kube-1").body["metadata"]["uid"]
    assert [(owner["kind"], owner["uid"]) for owner in node["ownerReferences"]] == [("Node", uid)]
    assert world.admin.client.merge("/api/v1/nodes/kube-1", {"metadata": {"labels": {"zone": None}}}).ok
    eventually(lambda: "zone" not in world.admin.get("sandboxnodes", "kube-1").body["metadata"]["labels"], "it goes")


def test_disk_is_counted_with_the_size_that_was_asked_for(world):
    """Of a node that offers 100Gi: one that sleeps holds its disk, and no node is ever large enough for 64Ti."""
    world.fleet.add("n1")
    world.runner.start()
    world.apply("huge", disk={"size": "64Ti"})
    world.waits("huge", "NoCapacity", "0/1 nodes: 1 too small for 64Ti disk")
    world.apply("first", disk={"size": "60Gi"}, operatingMode="Suspended")
    world.placed("first")
    got = {"cpu": 1, "memory": "512Mi", "disk": "60Gi"}
    world.report("first", condition("Suspended", reason="Suspended"), resources=got)
    world.apply("second", disk={"size": "60Gi"})
    world.waits("second", "NoCapacity", "0/1 nodes: 1 without room for 60Gi disk")
    world.apply("small", disk={"size": "40Gi"})
    world.placed("small")
    world.admin.delete(SANDBOXES, "small")
    world.report("small", condition("Released", reason="Released"))
    world.admin.delete(SANDBOXES, "first")
    world.report("first", condition("Released", reason="Released"))
    world.placed("second")


def test_a_template_is_waited_for(world, controller):
    world.fleet.add("n1")
    world.fleet.add("n2")
    world.runner.start()
    world.apply("clone", source={"snapshotTemplate": {"name": "warm"}})
    world.waits("clone", "SourceNotReady", "no SnapshotTemplate warm")
    body = {
        "apiVersion": chart.API_VERSION,
        "kind": "SnapshotTemplate",
        "metadata": {"name": "warm"},
        "spec": {"source": {"sandbox": {"name": "s"}}},
    }
    assert world.admin.create("snapshottemplates", body).ok
    world.waits("clone", "SourceNotReady", "is not ready: there is no Sandbox s")
    status = {"nodeName": "n2", "nodes": ["n2"], "readyToUse": True, "resources": {"cpu": 2, "memory": "1Gi"}}
    assert controller.apply_status("snapshottemplates", "warm", status).ok
    assert world.placed("clone") == "n2"


def test_capacity_is_exact_when_many_come_at_once_and_freed_room_goes_to_the_oldest(world):
    for name in ("n1", "n2", "n3"):
        world.fleet.add(name, cpu=10)
    world.runner.start("one", "--workers=8")
    names = [f"s{index:02d}" for index in range(36)]
    makers = [threading.Thread(target=world.apply, args=(name,)) for name in names]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()

    def per_node() -> dict[str, int]:
        nodes = [world.node_of(name) for name in names]
        return {node: nodes.count(node) for node in set(nodes)}

    eventually(lambda: sum(per_node().get(n, 0) for n in ("n1", "n2", "n3")) == 30, "30 are placed", 30)
    eventually(lambda: all(world.reason(n) == "False NoCapacity" for n in names if not world.node_of(n)), "6 wait", 20)
    assert per_node() == {"n1": 10, "n2": 10, "n3": 10, "": 6}
    waiting = [name for name in names if not world.node_of(name)]
    assert "3 without room for 1 vCPU" in world.condition(waiting[0])["message"]
    made = {name: world.get(name)["metadata"]["creationTimestamp"] for name in waiting}
    victim = next(name for name in names if world.node_of(name))
    world.admin.delete(SANDBOXES, victim)
    world.report(victim, condition("Released", reason="Released"))
    world.gone(victim)
    eventually(lambda: sum(1 for name in waiting if world.node_of(name)) == 1, "one takes its place", 15)
    taken = next(name for name in waiting if world.node_of(name))
    assert made[taken] == min(made.values()), "creation times are whole seconds"


# --- deletion -------------------------------------------------------------------------------------


def test_a_sandbox_that_was_never_placed_goes_at_once(world):
    world.runner.start()
    world.apply("web")
    world.waits("web", "NoNode")
    world.admin.delete(SANDBOXES, "web")
    world.gone("web", 3)


def test_a_placed_sandbox_goes_when_its_agent_has_released_it(world):
    world.fleet.add("n1")
    world.runner.start()
    world.apply("web")
    world.placed("web")
    # Of the spec before the deletion, it says nothing about the deletion.
    world.admin.delete(SANDBOXES, "web")
    stale = condition("Released", reason="Released")
    assert world.admin.apply_status(SANDBOXES, "web", {"conditions": [stale]}).ok
    world.apply("other")
    world.placed("other")
    assert world.get("web"), "it is held until the agent speaks of this generation"
    world.report("web", condition("Released", reason="Released"))
    world.gone("web")


def test_refused_by_one_node_it_goes_to_another(world):
    world.fleet.add("n1", cpu=8)
    world.fleet.add("n2", cpu=4)
    world.runner.start()
    world.apply("web")
    assert world.placed("web") == "n1"
    world.report("web", condition("Released", reason="NoCapacity", message="no disk"), startedAt="2026-01-02T03:04:05Z")
    assert world.placed("web", "n2")
    status = world.get("web")["status"]
    assert "startedAt" not in status and world.reason("web", "Released") == " ", "what the first agent said is gone"
    world.report("web", condition("Released", reason="NoCapacity", message="no disk here either"))
    world.placed("web", "n1", seconds=20)  # after a while it is tried again


# --- when its time is over --------------------------------------------------------------------------


def in_zone(seconds_from_now: float, hours: int) -> str:
    zone = timezone(timedelta(hours=hours))
    return (datetime.now(zone) + timedelta(seconds=seconds_from_now)).isoformat(timespec="seconds")


def mode(world, name: str) -> str:
    return world.get(name)["spec"]["operatingMode"]


def test_a_shutdown_time_is_kept_by_whatever_clock_it_was_written(world):
    world.fleet.add("n1", cpu=16)
    world.runner.start()
    world.apply("tokyo", lifecycle={"shutdownTime": in_zone(4, 9), "shutdownPolicy": "Delete"})
    world.apply("denver", lifecycle={"shutdownTime": in_zone(4, -7), "shutdownPolicy": "Retain"})
    world.apply("later", lifecycle={"shutdownTime": in_zone(3600, 9), "shutdownPolicy": "Delete"})
    world.placed("tokyo")
    world.placed("denver")
    eventually(lambda: mode(world, "denver") == "Stopped", "it is stopped", 15)
    eventually(lambda: "deletionTimestamp" in world.get("tokyo")["metadata"], "it is deleted", 15)
    assert mode(world, "later") == "Running"
    for name in ("tokyo", "denver"):
        eventually(lambda name=name: world.events(name).count("Expired") == 1, f"an event tells of {name}")


def test_a_shutdown_time_that_was_past_at_creation_or_while_nobody_led_is_kept(world):
    world.fleet.add("n1", cpu=16)
    world.apply("old", lifecycle={"shutdownTime": "2020-01-02T15:04:05Z", "shutdownPolicy": "Delete"})
    world.apply("off", lifecycle={"shutdownTime": "2020-01-02T15:04:05+09:00"})
    world.runner.start()
    world.gone("old")
    eventually(lambda: mode(world, "off") == "Stopped", "it is stopped", 15)
    world.placed("off")


def test_one_that_a_user_suspended_is_deleted_only_where_its_policy_says_so(world):
    world.fleet.add("n1", cpu=16)
    world.apply("kept", operatingMode="Suspended", lifecycle={"shutdownTime": "2020-01-02T15:04:05Z"})
    world.apply("goes", operatingMode="Suspended",
                lifecycle={"shutdownTime": "2020-01-02T15:04:05Z", "shutdownPolicy": "Delete"})  # fmt: skip
    world.runner.start()
    world.gone("goes")
    world.placed("kept")
    assert mode(world, "kept") == "Suspended"


def test_what_has_finished_is_deleted_after_its_ttl(world):
    world.fleet.add("n1")
    world.runner.start()
    world.apply("job", command=["true"], lifecycle={"ttlAfterFinished": "2s"})
    world.placed("job")
    world.report("job", condition("Finished", reason="Completed"), finishedAt=in_zone(0, 0).replace("+00:00", "Z"))
    eventually(lambda: "deletionTimestamp" in world.get("job")["metadata"], "it is deleted", 15)
    eventually(lambda: "Expired" in world.events("job"), "an event tells")


def test_an_idle_sandbox_is_suspended_and_runs_on_if_something_happened(world):
    world.fleet.add("n1")
    world.runner.start()
    world.apply("web", idle={"timeout": "1m"})
    world.placed("web")
    world.report("web", condition("Idle", reason="IdleTimeout", message="nothing has happened in it for 60 s"))
    eventually(lambda: mode(world, "web") == "Suspended", "it is to sleep", 15)
    eventually(lambda: "IdleTimeout" in world.events("web"), "an event tells")
    world.report("web", condition("Idle", "False", reason="Running"))
    eventually(lambda: mode(world, "web") == "Running", "it runs on", 15)
    assert "dormouse.dev/idle-suspend" not in world.get("web")["metadata"].get("annotations", {})


def test_a_mark_of_another_object_wakes_nobody(world):
    world.fleet.add("n1")
    made = sandbox("copy", idle={"timeout": "1m"}, operatingMode="Suspended")
    made["metadata"]["annotations"] = {"dormouse.dev/idle-suspend": "0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11/2"}
    assert world.admin.create(SANDBOXES, made).ok
    world.apply("after")
    world.runner.start()
    world.placed("copy")
    world.report("copy", condition("Idle", "False", reason="Running"))
    world.placed("after")
    assert mode(world, "copy") == "Suspended"


# --- nodes that go ----------------------------------------------------------------------------------


def test_a_lost_node_is_said_and_taken_back_and_nothing_moves(world):
    world.fleet.add("n1")
    world.fleet.add("n2", cpu=1)
    world.runner.start()
    world.apply("web")
    assert world.placed("web") == "n1"
    world.report("web", condition("Ready", reason="Ready"), phase="Running")
    world.fleet.stop_agent("n1")
    eventually(lambda: world.reason("web", "Ready") == "Unknown NodeLost", "it says so", LEASE_SECONDS + 10)
    assert world.node_of("web") == "n1" and world.get("web")["status"]["phase"] == "Running"
    eventually(lambda: world.node_reason("n1") == "Unknown NodeLost", "its SandboxNode says so", 5)
    world.apply("next")
    assert world.placed("next") == "n2", "nothing new goes to a lost node"
    world.fleet.start_agent("n1")
    world.apply("later")
    assert world.placed("later") == "n1"
    world.report("web", condition("Ready", reason="Ready"), phase="Running")
    world.apply("last")
    world.placed("last")
    assert world.reason("web", "Ready") == "True Ready"
    assert world.node_reason("n1") == "True Ready", "its condition is the agent's again"


def test_a_persons_word_moves_it_off_a_lost_node_and_ends_a_deletion_there(world):
    world.fleet.add("n1", cpu=8)
    world.runner.start()
    world.apply("stays")
    world.apply("goes")
    world.placed("stays"), world.placed("goes")
    word = {"metadata": {"annotations": {GONE: "n1"}}}
    assert world.admin.merge(SANDBOXES, "stays", word).ok
    eventually(lambda: "NodeNotLost" in world.events("stays"), "its agent is alive", 10)
    assert world.node_of("stays") == "n1"
    world.admin.delete(SANDBOXES, "goes")
    world.fleet.add("n2")
    world.fleet.stop_agent("n1")
    assert world.placed("stays", "n2", seconds=LEASE_SECONDS + 10)
    assert world.get("goes"), "nobody has said it of this one"
    assert world.admin.merge(SANDBOXES, "goes", word).ok
    world.gone("goes")


# --- the process --------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before-finalizer", "after-finalizer", "after-node-name"])
def test_killed_at_any_point_of_a_placement_the_next_one_goes_on(world, point):
    world.fleet.add("n1", cpu=1)
    first = world.runner.start("first", failpoints=f"controller.place.{point}=1*kill")
    world.apply("web")
    eventually(lambda: not first.running(), "it is killed", 15, first.log_tail)
    assert world.node_of("web") == ("n1" if point == "after-node-name" else "")
    world.runner.start("second")
    assert world.placed("web") == "n1"
    assert world.get("web")["metadata"]["finalizers"] == [FINALIZER]
    world.apply("next")
    world.waits("next", "NoCapacity")


def test_killed_after_the_finalizer_a_deletion_ends_all_the_same(world):
    world.fleet.add("n1")
    first = world.runner.start("first", failpoints="controller.place.after-finalizer=1*kill")
    world.apply("web")
    eventually(lambda: not first.running(), "it is killed", 15, first.log_tail)
    world.admin.delete(SANDBOXES, "web")
    assert world.get("web"), "the finalizer holds it"
    world.runner.start("second")
    world.gone("web")


def test_a_warm_standby_takes_over_when_the_leader_dies(world):
    world.fleet.add("n1", cpu=8)
    world.runner.start("one", "--leader-elect", *SECOND_LEASE)
    world.apply("first")
    world.placed("first")
    world.runner.start("two", "--leader-elect", *SECOND_LEASE)  # ready, though it does not lead
    leader = next(one for one in world.runner._started if one.name == "one")
    leader.stop(grace_seconds=0)
    began = time.monotonic()
    world.apply("second")
    world.placed("second", seconds=15)
    assert time.monotonic() - began < 4 + 2.5 + 3, "the lease, a retry, and the placement"


def test_a_leader_that_is_asked_to_stop_hands_over_at_once(world):
    world.fleet.add("n1", cpu=8)
    slow = ("--lease-duration=60s", "--renew-deadline=30s", "--retry-period=500ms")
    leader = world.runner.start("one", "--leader-elect", *slow)
    world.apply("first")
    world.placed("first")
    world.runner.start("two", "--leader-elect", *slow)
    leader.stop(grace_seconds=20)
    world.apply("second")
    world.placed("second", seconds=10)


def test_what_it_serves(world):
    world.runner.start()
    assert world.runner.get("/healthz") == "ok" and world.runner.get("/readyz") == "ok"
    text = world.runner.get("/metrics")
    for name in (
        'controller_runtime_reconcile_total{controller="sandbox",result="success"}',
        'controller_runtime_reconcile_total{controller="template",result="success"}',
        'workqueue_depth{controller="sandbox",name="sandbox"',
        "dormouse_sandboxes_waiting",
        "rest_client_requests_total",
        "process_resident_memory_bytes",
    ):
        assert name in text, text


def test_the_api_server_goes_and_comes_back(world, control_plane):
    world.fleet.add("n1", cpu=8)
    daemon = world.runner.start()
    world.apply("before")
    world.placed("before")
    control_plane.forget_history()
    world.apply("after")
    world.placed("after", seconds=45)
    assert daemon.running() and world.node_of("before") == "n1"
