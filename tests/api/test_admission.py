"""An agent's power over the API ends at its node: with the chart's own role and policies, and a
token as in a pod."""

from __future__ import annotations

import pytest
from conftest import NAMESPACE, Api, condition, sandbox, sandbox_node, template

from bed import chart

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAMESPACE}/leases"
SEVERAL = ("sandboxes", "snapshottemplates")
BODIES = {"sandboxes": sandbox, "snapshottemplates": template}
POLICY = "ValidatingAdmissionPolicy"


@pytest.fixture(scope="session")
def agent(control_plane) -> Api:
    """The agent of node-a."""
    return Api(control_plane.as_token(control_plane.agent_token("node-a")))


@pytest.fixture
def placed(controller, created):
    """Makes an object of each kind under `name` and places it as the controller does; no node: it
    stays unplaced."""

    def place(name: str, node: str | None) -> None:
        for plural in SEVERAL:
            created(plural, BODIES[plural](name))
            if node:
                assert controller.apply_status(
                    plural, name, {"nodeName": node}, "dormouse-controller"
                ).ok

    return place


def lease(name: str) -> dict:
    return {
        "metadata": {"name": name},
        "spec": {"holderIdentity": "node-a", "leaseDurationSeconds": 40},
    }


EVENTS = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"


def event(name: str, kind: str = "Sandbox", regarding: str = "own", **changes) -> dict:
    """As the agent of node-a writes it."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"dormouse.dev/reporter": "agent"}},
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "type": "Normal",
        "reason": "Started",
        "action": "Start",
        "note": "it runs",
        "reportingController": "dormouse.dev/agent",
        "reportingInstance": "node-a",
        "regarding": {
            "apiVersion": "dormouse.dev/v1alpha1",
            "kind": kind,
            "namespace": NAMESPACE,
            "name": regarding,
        },
        **changes,
    }


# --- what an agent may ----------------------------------------------------------------------------


@pytest.mark.parametrize("plural", SEVERAL)
def test_an_agent_writes_the_status_of_what_is_on_its_node(agent, placed, plural):
    placed("own", "node-a")
    answer = agent.apply_status(
        plural, "own", {"phase": "Failed", "conditions": [condition("Ready", "False")]}
    )
    assert answer.ok, answer.message
    assert (
        answer.body["status"]["nodeName"] == "node-a" and answer.body["status"]["phase"] == "Failed"
    )


def test_an_agent_reads_sandboxes_and_templates(agent, placed):
    placed("own", "node-a")
    for plural in SEVERAL:
        listed = agent.client.get(
            f"/apis/{chart.API_VERSION}/{plural}", fieldSelector="status.nodeName=node-a"
        )
        assert [item["metadata"]["name"] for item in listed.body["items"]] == ["own"]
        assert agent.get(plural, "own").ok


def test_an_agent_keeps_its_own_sandbox_node(agent, admin):
    try:
        assert agent.create("sandboxnodes", sandbox_node("node-a")).status == 201
        answer = agent.apply_status("sandboxnodes", "node-a", {"kernelVersion": "6.1.0"})
        assert answer.ok, answer.message
        assert agent.get("sandboxnodes", "node-a").body["status"]["kernelVersion"] == "6.1.0"
    finally:
        admin.delete("sandboxnodes", "node-a")


def test_an_agent_renews_its_own_lease(agent, admin):
    try:
        made = agent.client.create(LEASES, lease("dormouse-node-node-a"))
        assert made.status == 201, made.message
        assert agent.client.get(f"{LEASES}/dormouse-node-node-a").ok
        assert agent.client.replace(f"{LEASES}/dormouse-node-node-a", made.body).ok
        assert agent.client.merge(
            f"{LEASES}/dormouse-node-node-a", {"spec": {"leaseDurationSeconds": 41}}
        ).ok
    finally:
        admin.client.delete(f"{LEASES}/dormouse-node-node-a")


SERIES = {"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}}


@pytest.mark.parametrize("kind", ["Sandbox", "SnapshotTemplate"])
def test_an_agent_writes_events_about_what_is_on_its_node(agent, admin, placed, kind):
    placed("own", "node-a")
    placed("theirs", "node-b")
    try:
        made = agent.client.create(EVENTS, event("own.1", kind))
        assert made.status == 201, made.message
        answer = agent.client.merge(f"{EVENTS}/own.1", SERIES)
        assert answer.ok, answer.message
        # Of one that is gone by now.
        answer = agent.client.create(EVENTS, event("gone.1", kind, "gone"), dryRun="All")
        assert answer.status == 201, answer.message
    finally:
        admin.client.delete(f"{EVENTS}/own.1")


# --- what an agent may not ------------------------------------------------------------------------


@pytest.mark.parametrize("plural", SEVERAL)
def test_an_agent_cannot_write_the_status_of_another_node(agent, admin, placed, plural):
    placed("theirs", "node-b")
    answer = agent.apply_status(plural, "theirs", {"phase": "Failed"})
    assert answer.status == 403 and POLICY in answer.message
    assert "it is on the node node-b, and the agent on node-a" in answer.message
    assert "phase" not in admin.get(plural, "theirs").body["status"]


@pytest.mark.parametrize("plural", SEVERAL)
def test_an_agent_cannot_take_what_is_not_placed(agent, placed, plural):
    placed("free", None)
    for status in ({"phase": "Failed"}, {"nodeName": "node-a"}):
        answer = agent.apply_status(plural, "free", status)
        assert (
            answer.status == 403 and "it is on no node, and the agent on node-a" in answer.message
        )


@pytest.mark.parametrize("plural", SEVERAL)
def test_an_agent_cannot_move_or_drop_what_it_has(agent, admin, placed, plural):
    placed("own", "node-a")
    path = agent.path(plural, "own", "status")
    for answer in (
        agent.apply_status(plural, "own", {"nodeName": "node-b"}),
        agent.merge(plural, "own", {"status": {"nodeName": None}}, "status"),
        agent.merge(plural, "own", {"status": None}, "status"),
        agent.client.request(
            "PATCH",
            path,
            [{"op": "replace", "path": "/status/nodeName", "value": "node-b"}],
            content_type="application/json-patch+json",
        ),
    ):
        assert answer.status == 403 and "an agent does not change status.nodeName" in answer.message
    assert admin.get(plural, "own").body["status"]["nodeName"] == "node-a"


@pytest.mark.parametrize("plural", SEVERAL)
@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"operatingMode": "Suspended", "ttl": "1h"}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
        {"metadata": {"annotations": {"dormouse.dev/node-is-gone": "node-a"}}},
    ],
    ids=["spec", "labels", "finalizers", "annotations"],
)
def test_an_agent_writes_no_spec_and_no_metadata(agent, admin, placed, plural, change):
    placed("own", "node-a")
    before = admin.get(plural, "own").body
    assert agent.client.merge(agent.path(plural, "own"), change).status == 403
    # Nor by way of the status: what comes beside it there is ignored.
    assert agent.client.merge(
        agent.path(plural, "own", "status"), {**change, "status": {"phase": "Failed"}}
    ).ok
    after = admin.get(plural, "own").body
    assert after["spec"] == before["spec"]
    for key in ("labels", "finalizers", "annotations", "generation"):
        assert after["metadata"].get(key) == before["metadata"].get(key)


@pytest.mark.parametrize("plural", SEVERAL)
def test_an_agent_makes_and_deletes_nothing(agent, placed, plural):
    placed("own", "node-a")
    assert agent.create(plural, BODIES[plural]("new")).status == 403
    assert agent.delete(plural, "own").status == 403


@pytest.mark.parametrize("kind", ["Sandbox", "SnapshotTemplate"])
def test_an_agent_writes_no_event_about_what_is_elsewhere(agent, admin, placed, kind):
    placed("own", "node-a")
    placed("theirs", "node-b")
    placed("free", None)
    uid = admin.get({"Sandbox": "sandboxes"}.get(kind, "snapshottemplates"), "theirs").body["metadata"]["uid"]
    by_uid = event("e1", kind, "any")
    by_uid["regarding"]["uid"] = uid
    for body in (event("e1", kind, "theirs"), event("e1", kind, "free"), by_uid):
        answer = agent.client.create(EVENTS, body, dryRun="All")
        words = "what the Event is about is not on the agent's node"
        assert answer.status == 403 and words in answer.message, answer.message


def test_an_agent_writes_no_event_but_as_itself(agent, admin, placed):
    placed("own", "node-a")
    own = "an agent writes its own Events only"
    unlabelled = event("e1")
    del unlabelled["metadata"]["labels"]
    of_a_pod = event("e1", "Pod")
    of_a_pod["regarding"]["apiVersion"] = "v1"
    for words, body in (
        (own, event("e1", reportingInstance="node-b")),
        (own, event("e1", reportingController="kubelet")),
        ("an agent's Events have the label dormouse.dev/reporter: agent", unlabelled),
        ("an agent's Events are about Sandboxes, SnapshotTemplates and its own SandboxNode", of_a_pod),
        (
            "an agent's Events are about Sandboxes, SnapshotTemplates and its own SandboxNode",
            event("e1", "SandboxNode", "node-b"),
        ),
    ):
        answer = agent.client.create(EVENTS, body, dryRun="All")
        assert answer.status == 403 and words in answer.message, answer.message
    assert agent.client.create(EVENTS, event("e1", "SandboxNode", "node-a"), dryRun="All").ok


def test_an_agent_changes_no_event_of_another(agent, admin, placed):
    placed("own", "node-a")
    placed("theirs", "node-b")
    others = [
        event("e.1", reportingController="kubelet"),
        event("e.2", regarding="theirs", reportingInstance="node-b"),
    ]
    try:
        for body in others:
            assert admin.client.create(EVENTS, body).status == 201
        for body in others:
            answer = agent.client.merge(f"{EVENTS}/{body['metadata']['name']}", SERIES)
            assert answer.status == 403 and "an agent writes its own Events only" in answer.message, answer.message
    finally:
        for body in others:
            admin.client.delete(f"{EVENTS}/{body['metadata']['name']}")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"ownerReferences": []}},
        {"spec": {"unschedulable": False}},
        {"spec": {"taints": []}},
    ],
    ids=["labels", "owner", "unschedulable", "taints"],
)
def test_an_agent_writes_nothing_of_its_sandbox_node_but_the_status(agent, admin, created, change):
    """What decides which sandboxes come to a node is not its own to say."""
    node = sandbox_node("node-a", unschedulable=True, taints=[{"key": "example.com/a", "effect": "NoSchedule"}])
    node["metadata"]["labels"] = {"zone": "b"}
    node["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "1"}]
    before = created("sandboxnodes", node)
    assert agent.merge("sandboxnodes", "node-a", change).status == 403
    # Nor by way of the status: what comes beside it there is ignored.
    answer = agent.merge("sandboxnodes", "node-a", {**change, "status": {"kernelVersion": "6.1.0"}}, "status")
    assert answer.ok, answer.message
    after = admin.get("sandboxnodes", "node-a").body
    assert after["spec"] == before["spec"]
    for key in ("labels", "ownerReferences"):
        assert after["metadata"][key] == before["metadata"][key]


@pytest.mark.parametrize(
    ("metadata", "spec"),
    [
        ({"labels": {"zone": "a"}}, {}),
        ({"annotations": {"a": "b"}}, {}),
        ({"finalizers": ["example.com/never"]}, {}),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-b", "uid": "1"}]}, {}),
        ({}, {"unschedulable": True}),
        ({}, {"taints": [{"key": "example.com/a", "effect": "NoSchedule"}]}),
    ],
    ids=["labels", "annotations", "finalizers", "owner", "unschedulable", "taints"],
)
def test_an_agent_makes_a_bare_sandbox_node(agent, metadata, spec):
    body = sandbox_node("node-a", **spec)
    body["metadata"].update(metadata)
    answer = agent.create("sandboxnodes", body, dryRun="All")
    words = "an agent makes its SandboxNode without labels, annotations, owner, taints and unschedulable"
    assert answer.status == 403 and words in answer.message, answer.message


def test_a_wider_role_does_not_widen_the_policy(control_plane, agent, admin, placed):
    placed("own", "node-a")
    role = {
        "metadata": {"name": "too-wide"},
        "rules": [
            {
                "apiGroups": ["dormouse.dev"],
                "resources": ["sandboxes", "sandboxnodes"],
                "verbs": ["create", "patch", "delete"],
            },
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["delete"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "delete"]},
        ],
    }
    binding = {
        "metadata": {"name": "too-wide"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "too-wide",
        },
        "subjects": [
            {"kind": "ServiceAccount", "name": chart.AGENT_ACCOUNT, "namespace": chart.NAMESPACE}
        ],
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    assert admin.client.create(f"{rbac}/clusterroles", role).ok
    assert admin.client.create(f"{rbac}/clusterrolebindings", binding).ok
    assert admin.create("sandboxnodes", sandbox_node("node-a")).ok
    assert admin.client.create(LEASES, lease("dormouse-node-node-a")).ok
    assert admin.client.create(EVENTS, event("own.1")).ok
    older = {
        "metadata": {"name": "e1", "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "p"},
    }
    try:
        # Roles reach the authorizer a moment after they were written; the answer then is the
        # policy's.
        attempts = {
            "an agent writes nothing but the status": [
                lambda: agent.merge(
                    "sandboxes", "own", {"spec": {"operatingMode": "Suspended"}}, dryRun="All"
                ),
                lambda: agent.create("sandboxes", sandbox("new"), dryRun="All"),
                lambda: agent.client.delete(agent.path("sandboxes", "own"), dryRun="All"),
            ],
            "an agent deletes no SandboxNode": [
                lambda: agent.client.delete(agent.path("sandboxnodes", "node-a"), dryRun="All")
            ],
            "an agent writes nothing of its SandboxNode but the status": [
                lambda: agent.merge("sandboxnodes", "node-a", {"spec": {"unschedulable": True}}, dryRun="All")
            ],
            "an agent deletes no Lease": [
                lambda: agent.client.delete(f"{LEASES}/dormouse-node-node-a", dryRun="All")
            ],
            "an agent deletes no Event": [lambda: agent.client.delete(f"{EVENTS}/own.1", dryRun="All")],
            "an agent writes its own Events only": [
                lambda: agent.client.create(f"/api/v1/namespaces/{NAMESPACE}/events", older, dryRun="All")
            ],
        }
        for words, calls in attempts.items():
            for call in calls:
                control_plane.wait_until(
                    lambda call=call: POLICY in call().message, "the wider role"
                )
                answer = call()
                assert answer.status == 403 and words in answer.message, answer.message
    finally:
        admin.client.delete(f"{rbac}/clusterrolebindings/too-wide")
        admin.client.delete(f"{rbac}/clusterroles/too-wide")
        admin.delete("sandboxnodes", "node-a")
        admin.client.delete(f"{LEASES}/dormouse-node-node-a")
        admin.client.delete(f"{EVENTS}/own.1")


def test_an_agent_cannot_touch_another_sandbox_node(agent, created):
    created("sandboxnodes", sandbox_node("node-b"))
    words = "the agent on node-a writes the SandboxNode of that name only"
    for answer in (
        agent.create("sandboxnodes", sandbox_node("node-c")),
        agent.apply_status("sandboxnodes", "node-b", {"kernelVersion": "0"}),
    ):
        assert answer.status == 403 and words in answer.message, answer.message
    assert agent.delete("sandboxnodes", "node-b").status == 403


def test_an_agent_cannot_touch_another_lease(agent, admin):
    admin.client.create(LEASES, lease("dormouse-node-node-b"))
    admin.client.create(LEASES, lease("dormouse-controller"))
    words = "the agent on node-a writes the Lease dormouse-node-node-a only"
    try:
        for name in ("dormouse-node-node-b", "dormouse-controller"):
            answer = agent.client.merge(f"{LEASES}/{name}", {"spec": {"leaseDurationSeconds": 1}})
            assert answer.status == 403 and words in answer.message
        answer = agent.client.create(LEASES, lease("dormouse-node-node-c"))
        assert answer.status == 403 and words in answer.message
        elsewhere = LEASES.replace(chart.NAMESPACE, "kube-node-lease")
        assert agent.client.create(elsewhere, lease("dormouse-node-node-a")).status == 403
    finally:
        admin.client.delete(f"{LEASES}/dormouse-node-node-b")
        admin.client.delete(f"{LEASES}/dormouse-controller")


def test_a_token_that_is_bound_to_no_node_may_write_nothing(control_plane, placed):
    placed("own", "node-a")
    unbound = Api(control_plane.as_token(control_plane.service_account_token(chart.AGENT_ACCOUNT)))
    for answer in (
        unbound.apply_status("sandboxes", "own", {"phase": "Failed"}),
        unbound.create("sandboxnodes", sandbox_node("node-a")),
        unbound.client.create(LEASES, lease("dormouse-node-node-a")),
        unbound.client.create(EVENTS, event("gone.1", "Sandbox", "gone")),
    ):
        assert answer.status == 403 and "the agent's token is bound to no node" in answer.message


def test_an_agent_reads_no_secret_and_no_node(agent):
    for path in (
        "/api/v1/secrets",
        f"/api/v1/namespaces/{chart.NAMESPACE}/secrets",
        "/api/v1/nodes",
        "/api/v1/pods",
    ):
        assert agent.client.get(path).status == 403


# --- who places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plural", SEVERAL)
def test_nobody_but_the_controller_sets_the_node(admin, controller, created, plural):
    """The administrator of the cluster is no exception, but may do it in the controller's name."""
    created(plural, BODIES[plural]("free"))
    words = "only the controller sets status.nodeName"
    assert admin.apply_status(plural, "free", {"phase": "Pending"}, "by-hand").ok
    answer = admin.apply_status(plural, "free", {"nodeName": "node-a"}, "by-hand")
    assert answer.status == 403 and words in answer.message
    named = Api(admin.client.impersonating(f"system:serviceaccount:{chart.NAMESPACE}:{chart.CONTROLLER_ACCOUNT}"))
    assert named.apply_status(plural, "free", {"nodeName": "node-a"}, "by-hand").ok
    for change in ({"nodeName": "node-b"}, {"nodeName": None}):
        answer = admin.merge(plural, "free", {"status": change}, "status")
        assert answer.status == 403 and words in answer.message
    assert admin.get(plural, "free").body["status"]["nodeName"] == "node-a"


# --- the controller -------------------------------------------------------------------------------


def test_the_controller_places_and_releases(controller, admin):
    for plural in SEVERAL:
        assert admin.create(plural, BODIES[plural]("placed")).ok
        finalizer = {"metadata": {"finalizers": ["dormouse.dev/node-cleanup"]}}
        assert controller.merge(plural, "placed", finalizer).ok
        placed = {"nodeName": "node-a", "conditions": [condition("Scheduled")]}
        assert controller.apply_status(plural, "placed", placed, "dormouse-controller").ok
        assert controller.delete(plural, "placed").ok
        assert admin.get(plural, "placed").body["metadata"]["deletionTimestamp"]
        assert controller.merge(plural, "placed", {"metadata": {"finalizers": None}}).ok
        assert admin.get(plural, "placed").status == 404


def test_the_controller_suspends_an_idle_sandbox(controller, created):
    created("sandboxes", sandbox("idle", idle={"timeout": "1m"}))
    assert controller.merge("sandboxes", "idle", {"spec": {"operatingMode": "Suspended"}}).ok


def test_the_controller_watches_nodes_and_leases(controller, created):
    created("sandboxnodes", sandbox_node("node-d"))
    for path in (
        "/api/v1/nodes",
        f"/apis/{chart.API_VERSION}/sandboxnodes",
        LEASES,
        f"/apis/{chart.API_VERSION}/sandboxes",
    ):
        assert controller.client.get(path).ok
    assert controller.merge("sandboxnodes", "node-d", {"metadata": {"labels": {"zone": "a"}}}).ok
    assert controller.client.create(LEASES, lease("dormouse-controller")).ok
    assert controller.client.delete(f"{LEASES}/dormouse-controller").ok
    assert controller.delete("sandboxnodes", "node-d").ok


def test_the_controller_has_no_more_than_it_needs(controller):
    assert controller.client.get("/api/v1/secrets").status == 403
    assert controller.client.get("/api/v1/pods").status == 403
    assert controller.create("sandboxes", sandbox("new")).status == 403
    assert (
        controller.client.merge("/api/v1/nodes/node-a", {"spec": {"unschedulable": True}}).status
        == 403
    )


# --- users ----------------------------------------------------------------------------------------


@pytest.fixture
def user_of(admin):
    """A user who is bound in the test's namespace to a cluster role."""
    made = []

    def bind(role: str) -> Api:
        body = {
            "metadata": {"name": f"user-{role}"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"user-{role}"}
            ],
        }
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings"
        assert admin.client.create(path, body).ok
        made.append(f"{path}/user-{role}")
        return Api(admin.client.impersonating(f"user-{role}"))

    yield bind
    for path in made:
        admin.client.delete(path)


@pytest.mark.parametrize(
    ("role", "ours"),
    [
        ("view", "viewer"),
        ("edit", "editor"),
        ("admin", "editor"),
        ("dormouse-sandbox-editor", None),
    ],
)
def test_the_roles_of_the_cluster_know_sandboxes(control_plane, admin, user_of, placed, role, ours):
    user = user_of(role)
    placed("placed", "node-a")
    # No controller manager aggregates here: the cluster's own roles are empty until a person merges
    # ours into them.
    if ours:
        roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        kinds = ("sandbox", "snapshottemplate")
        bodies = [control_plane.admin.get(f"{roles}/dormouse-{kind}-{ours}").body for kind in kinds]
        for body in bodies:
            assert body["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
        rules = [rule for body in bodies for rule in body["rules"]]
        assert control_plane.admin.merge(f"{roles}/{role}", {"rules": rules}).ok
    control_plane.wait_until(lambda: user.client.get(user.path("sandboxes")).ok, f"the role {role}")
    assert (user.create("sandboxes", sandbox("theirs"), dryRun="All").status == 201) == (role != "view")
    # A status is how the controller and the agents talk to each other: nobody's word counts there but theirs.
    for plural in SEVERAL:
        answer = user.merge(plural, "placed", {"status": {"phase": "Failed"}}, "status")
        assert answer.status == 403 and POLICY not in answer.message, answer.message


def test_no_role_for_people_writes_a_status(control_plane):
    roles = control_plane.admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").body["items"]
    theirs = [one for one in roles if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "users"]
    assert len(theirs) == 6
    for role in theirs:
        for rule in role["rules"]:
            if any(resource.endswith("/status") for resource in rule["resources"]):
                assert rule["verbs"] == ["get"], role["metadata"]["name"]
