"""What users see: columns, explanations, selectors and waits of kubectl against our kinds."""

from __future__ import annotations

import pytest
from conftest import condition, sandbox, sandbox_node, template


def table(output: str) -> list[list[str]]:
    """Rows of cells; an empty cell is lost, so tests fill all that they look at."""
    return [line.split() for line in output.strip().splitlines()]


@pytest.fixture
def running(controller, created):
    created("sandboxes", sandbox("s1"))
    status = {
        "phase": "Running",
        "nodeName": "node-a",
        "conditions": [condition("Ready")],
        "network": {"hostIP": "10.201.0.5"},
        "idleDeadline": "2026-01-02T03:14:05Z",
        "storage": {"cowUsedPercent": 12},
    }
    assert controller.apply_status("sandboxes", "s1", status).ok


def test_the_columns_of_a_sandbox(control_plane, running):
    header, row = table(control_plane.kubectl("get", "sbx").stdout)
    assert header == ["NAME", "READY", "MODE", "PHASE", "NODE", "AGE"]
    assert row[:-1] == ["s1", "True", "Running", "Running", "node-a"]
    header, row = table(control_plane.kubectl("get", "sandboxes", "-o", "wide").stdout)
    assert header[6:] == ["REASON", "SOURCE", "IP", "IDLE-DEADLINE", "COW%"]
    assert row[6:] == ["Started", "debian-12", "10.201.0.5", "2026-01-02T03:14:05Z", "12"]


def test_the_source_column_names_a_template_too(control_plane, created):
    created("sandboxes", sandbox("clone", source={"snapshotTemplate": {"name": "warm-python"}}))
    assert "warm-python" in control_plane.kubectl("get", "sbx", "clone", "-o", "wide").stdout


def test_the_columns_of_a_template(control_plane, controller, created):
    created("snapshottemplates", template("t1"))
    status = {
        "nodeName": "node-a",
        "references": 2,
        "allocatedBytes": 1048576,
        "phase": "Ready",
        "pauseWindow": "35ms",
        "conditions": [condition("Ready", reason="Captured")],
    }
    assert controller.apply_status("snapshottemplates", "t1", status).ok
    header, row = table(control_plane.kubectl("get", "snaptpl").stdout)
    assert header == ["NAME", "SOURCE", "READY", "REFS", "SIZE", "NODE", "AGE"]
    assert row[:-1] == ["t1", "s1", "True", "2", "1048576", "node-a"]
    header, row = table(control_plane.kubectl("get", "snaptpl", "-o", "wide").stdout)
    assert header[7:] == ["PHASE", "REASON", "PAUSE"] and row[7:] == ["Ready", "Captured", "35ms"]


def test_the_columns_of_a_node(control_plane, admin, created):
    created("sandboxnodes", sandbox_node("node-x"))
    amount = {"cpu": 8, "memory": "16Gi", "running": 3, "sleeping": 5}
    status = {
        "capacity": amount,
        "allocated": amount,
        "hypervisor": {"version": "v53.0"},
        "conditions": [condition("Ready", reason="Synced")],
        "kernelVersion": "6.1.0",
        "endpoint": "192.0.2.1:8443",
    }
    assert admin.apply_status("sandboxnodes", "node-x", status).ok
    header, row = table(control_plane.kubectl("get", "sbxnode", "node-x", "-o", "wide").stdout)
    assert header[:7] == [
        "NAME",
        "READY",
        "UNSCHEDULABLE",
        "RUNNING",
        "SLEEPING",
        "HYPERVISOR",
        "AGE",
    ]
    assert header[7:] == ["REASON", "CPU", "MEMORY", "KERNEL", "ENDPOINT"]
    assert row[:6] == ["node-x", "True", "false", "3", "5", "v53.0"]
    assert row[7:] == ["Synced", "8", "16Gi", "6.1.0", "192.0.2.1:8443"]


def test_one_category_lists_all_kinds(control_plane, running, created):
    created("snapshottemplates", template("t2"))
    names = control_plane.kubectl("get", "dormouse", "-o", "name").stdout.split()
    assert {"sandbox.dormouse.dev/s1", "snapshottemplate.dormouse.dev/t2"} <= set(names)


def test_sandboxes_are_selected_by_node_phase_mode_and_template(control_plane, running, created):
    created(
        "sandboxes",
        sandbox("other", source={"snapshotTemplate": {"name": "warm"}}, operatingMode="Suspended"),
    )
    for selector, expected in (
        ("status.nodeName=node-a", ["s1"]),
        ("status.nodeName=", ["other"]),
        ("status.phase=Running", ["s1"]),
        ("spec.operatingMode=Suspended", ["other"]),
        ("spec.source.snapshotTemplate.name=warm", ["other"]),
    ):
        output = control_plane.admin.get(
            "/apis/dormouse.dev/v1alpha1/namespaces/default/sandboxes", fieldSelector=selector
        )
        assert [item["metadata"]["name"] for item in output.body["items"]] == expected, selector


def test_templates_are_selected_by_node(control_plane, controller, created):
    created("snapshottemplates", template("here"))
    created("snapshottemplates", template("there"))
    assert controller.apply_status("snapshottemplates", "here", {"nodeName": "node-a"}).ok
    names = control_plane.kubectl(
        "get", "snaptpl", "--field-selector=status.nodeName=node-a", "-o", "name"
    ).stdout
    assert names.split() == ["snapshottemplate.dormouse.dev/here"]


def test_wait_for_a_condition_and_for_a_phase(control_plane, running):
    control_plane.kubectl("wait", "--for=condition=Ready", "--timeout=10s", "sbx/s1")
    control_plane.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Running", "--timeout=10s", "sbx/s1"
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sandbox", "A Sandbox is a microVM with a disk and a network of its own."),
        ("sandbox.spec.operatingMode", "Running again wakes it where it was."),
        ("sandbox.spec.network.egress", "nothing of the node itself"),
        ("sandbox.status.conditions.reason", "docs/reasons.md"),
        ("snapshottemplate.spec.sourceAfterCapture", "What becomes of the source."),
        ("sandboxnode.status.capacity", "What sandboxes can have in all."),
        ("sandboxnode.status.allocated", "What the sandboxes that are there have."),
    ],
)
def test_explain_tells_a_user_what_a_field_is(control_plane, path, words):
    answer = control_plane.kubectl("explain", path).stdout
    assert words in " ".join(answer.split())


def test_every_field_of_every_kind_is_explained(control_plane):
    for plural in ("sandboxes", "snapshottemplates", "sandboxnodes"):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.dormouse.dev"
        definition = control_plane.admin.get(path).body
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        silent = [field for field in undescribed(schema, plural) if not field.endswith(".metadata")]
        assert silent == []


def undescribed(schema: dict, path: str):
    if "description" not in schema:
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from undescribed(child, f"{path}.{name}")
    items = schema.get("items", {})
    for name, child in items.get("properties", {}).items():
        yield from undescribed(child, f"{path}[].{name}")


def test_everything_a_user_can_write_has_a_greatest_length(control_plane):
    for plural in ("sandboxes", "snapshottemplates", "sandboxnodes"):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.dormouse.dev"
        schema = control_plane.admin.get(path).body["spec"]["versions"][0]["schema"][
            "openAPIV3Schema"
        ]
        for part in ("spec", "status"):
            assert list(unbounded(schema["properties"][part], f"{plural}.{part}")) == []


def unbounded(schema: dict, path: str):
    kind = schema.get("type")
    if kind == "string" and not {"maxLength", "enum", "format"} & schema.keys():
        yield path
    if kind == "array":
        if "maxItems" not in schema:
            yield path
        yield from unbounded(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        if "maxProperties" not in schema:
            yield path
        yield from unbounded(schema["additionalProperties"], f"{path}{{}}")
    for name, child in schema.get("properties", {}).items():
        yield from unbounded(child, f"{path}.{name}")
