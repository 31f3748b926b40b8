"""A real API server for the tests of this folder: started once, with the chart's CRDs, roles and
policies."""

from __future__ import annotations

import pytest

from bed.api_client import Answer, ApiClient
from bed.chart import API_VERSION
from bed.control_plane import ControlPlane

NAMESPACE = "default"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        # Off by default, for what it costs where sandboxes are many.
        running.install_dormouse("--set", "admissionPolicy.eventSubjects=true")
        yield running


class Api:
    """Our kinds, as one user sees them."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    @staticmethod
    def path(plural: str, name: str = "", subresource: str = "") -> str:
        namespace = "" if plural == "sandboxnodes" else f"/namespaces/{NAMESPACE}"
        return "/".join(
            part for part in (f"/apis/{API_VERSION}{namespace}/{plural}", name, subresource) if part
        )

    def create(self, plural: str, body: dict, **query: str) -> Answer:
        return self.client.create(self.path(plural), body, fieldValidation="Strict", **query)

    def get(self, plural: str, name: str) -> Answer:
        return self.client.get(self.path(plural, name))

    def merge(
        self, plural: str, name: str, body: dict, subresource: str = "", **query: str
    ) -> Answer:
        return self.client.merge(
            self.path(plural, name, subresource), body, fieldValidation="Strict", **query
        )

    def apply_status(
        self, plural: str, name: str, status: dict, manager: str = "dormouse-agent", **meta
    ) -> Answer:
        kind = {
            "sandboxes": "Sandbox",
            "snapshottemplates": "SnapshotTemplate",
            "sandboxnodes": "SandboxNode",
        }[plural]
        body = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, **meta},
            "status": status,
        }
        return self.client.apply(self.path(plural, name, "status"), body, manager)

    def delete(self, plural: str, name: str) -> Answer:
        return self.client.delete(self.path(plural, name))


@pytest.fixture(scope="session")
def admin(control_plane) -> Api:
    return Api(control_plane.admin)


@pytest.fixture(scope="session")
def controller(control_plane) -> Api:
    """Who sets status.nodeName: nobody else may, the administrator of the cluster included."""
    return Api(control_plane.as_token(control_plane.controller_token()))


@pytest.fixture
def created(admin):
    """Makes objects that are gone after the test."""
    made: list[tuple[str, str]] = []

    def create(plural: str, body: dict) -> dict:
        answer = admin.create(plural, body)
        assert answer.status == 201, answer.message
        made.append((plural, body["metadata"]["name"]))
        return answer.body

    yield create
    for plural, name in made:
        admin.delete(plural, name)


def sandbox(name: str = "s1", **spec) -> dict:
    spec.setdefault("source", {"image": {"name": "debian-12"}})
    return {"apiVersion": API_VERSION, "kind": "Sandbox", "metadata": {"name": name}, "spec": spec}


def template(name: str = "t1", **spec) -> dict:
    spec.setdefault("source", {"sandbox": {"name": "s1"}})
    return {
        "apiVersion": API_VERSION,
        "kind": "SnapshotTemplate",
        "metadata": {"name": name},
        "spec": spec,
    }


def sandbox_node(name: str = "n1", **spec) -> dict:
    return {
        "apiVersion": API_VERSION,
        "kind": "SandboxNode",
        "metadata": {"name": name},
        "spec": spec,
    }


def condition(kind: str, status: str = "True", reason: str = "Started", message: str = "") -> dict:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": 1,
    }
