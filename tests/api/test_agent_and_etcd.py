"""The real controller and agent over the fake VMM, against an API server that is not as they left it: etcd restored
from a snapshot under them, and a CRD that is older than the agent."""

from __future__ import annotations

import os
import shutil

import pytest

from bed.controller import Controller
from bed.eventually import eventually
from bed.manifests import SANDBOXES, object_path, sandbox
from bench.host_fake import Bench

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sandboxes.dormouse.dev"
TINY = {"resources": {"cpu": 1, "memory": "64Mi"}, "bootSnapshot": "Never"}


@pytest.fixture
def bench(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("the agent makes network namespaces, and needs root")
    with Bench(tmp_path) as running:
        yield running


def create(bench: Bench, *names: str, **spec) -> None:
    for name in names:
        answer = bench.api.admin.create(object_path(SANDBOXES), sandbox(name, **TINY, **spec))
        assert answer.status == 201, answer.message


def get(bench: Bench, name: str) -> dict | None:
    answer = bench.api.admin.get(object_path(SANDBOXES, name))
    return answer.body if answer.ok else None


def condition(found: dict, kind: str) -> dict:
    return next((each for each in found.get("status", {}).get("conditions", []) if each["type"] == kind), {})


def wait_ready(bench: Bench, name: str, but_started_at: str = "") -> dict:
    def ready() -> dict | None:
        found = get(bench, name) or {}
        started = found.get("status", {}).get("startedAt")
        return found if condition(found, "Ready").get("status") == "True" and started != but_started_at else None

    return eventually(ready, f"{name} is Ready", 120, bench.agent_log)


def test_a_restored_etcd_is_believed_by_a_running_controller_and_agent(bench, tmp_path):
    if shutil.which("etcdctl") is None:
        pytest.skip("needs etcdctl (etcd-client)")
    create(bench, "kept", "deleted")
    before = {name: wait_ready(bench, name)["status"]["startedAt"] for name in ("kept", "deleted")}
    # In the snapshot nobody has placed it yet; the controller that goes on has.
    bench.controller.stop()
    create(bench, "placed")
    bench.api.save_etcd(tmp_path / "snapshot.db")
    bench.controller = Controller(bench.api, bench.folder, leader_elect=False)
    bench.controller.start()
    wait_ready(bench, "placed")
    create(bench, "made-later")
    wait_ready(bench, "made-later")
    bench.api.expect(bench.api.admin.delete(object_path(SANDBOXES, "deleted")), "delete one")
    eventually(lambda: get(bench, "deleted") is None, "it is gone", 60, bench.agent_log)
    pids = bench.controller.pid(), bench.agent.pid()

    bench.api.restore_etcd(tmp_path / "snapshot.db")
    # What the controller had placed before is placed once more, and what the agent had said is said once more.
    wait_ready(bench, "placed")
    # Its files went with its deletion: it starts anew.
    wait_ready(bench, "deleted", but_started_at=before["deleted"])
    assert get(bench, "made-later") is None
    eventually(lambda: "the object of a sandbox is gone" in bench.log(), "the agent stops what etcd has forgotten", 60)
    assert get(bench, "kept")["status"]["startedAt"] == before["kept"], "it never noticed"
    create(bench, "new")
    wait_ready(bench, "new")
    bench.delete("kept", "deleted", "placed", "new")
    assert (bench.controller.pid(), bench.agent.pid()) == pids, "neither was started anew"


def test_an_agent_newer_than_its_crd_still_says_what_matters_and_deletes(bench):
    create(bench, "old")
    wait_ready(bench, "old")
    crd = bench.api.expect(bench.api.admin.get(CRD), "read the CRD").body
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    for unknown in ("restartCount", "vm", "network"):
        del status[unknown]
    del crd["metadata"]["managedFields"]
    bench.api.expect(bench.api.admin.replace(CRD, crd), "take the CRD back to an older one")

    def refused() -> bool:
        body = {**sandbox("old"), "status": {"restartCount": 1}}
        del body["spec"]
        path = object_path(SANDBOXES, "old", "status")
        return bench.api.admin.apply(path, body, "probe", dryRun="All").status == 500

    eventually(refused, "the older CRD is in force", 30)
    create(bench, "young")
    eventually(
        lambda: condition(get(bench, "young"), "Ready").get("status") == "True", "it is Ready", 120, bench.agent_log
    )
    bench.delete("old", "young")
