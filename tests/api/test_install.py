"""The chart as helm installs it on a real API server: over CRDs that are there, and twice; and its own `helm test`."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from bed import chart, kubeconfig, tools
from bed.control_plane import ControlPlane
from test_chart import CRDS, parsed, the

SANDBOXES = f"/apis/{chart.API_VERSION}/namespaces/default/sandboxes"
NODES = f"/apis/{chart.API_VERSION}/sandboxnodes"
CRD_NAMES = ("sandboxes", "sandboxnodes", "snapshottemplates")
HELM_TEST = ("--set=tests.kubectlImage=kubectl", "--set=tests.sandboxImage=debian-12", "--set=tests.timeout=1s")


class Site:
    """A cluster on which nobody has installed anything."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane
        self.kubectl = control_plane.kubectl
        self.admin = control_plane.admin

    def helm(self, *arguments: str) -> str:
        return chart.helm(*arguments, f"--kubeconfig={self.control_plane.admin_kubeconfig}")

    def install(self, *arguments: str, release: str = chart.RELEASE, namespace: str = chart.NAMESPACE) -> str:
        where = (f"--namespace={namespace}", "--create-namespace")
        return self.helm("install", release, str(chart.CHART), *where, *arguments)

    def apply_crds(self) -> None:
        """As README and NOTES say."""
        self.kubectl("apply", "--server-side", "-f", str(CRDS))
        self.wait_for_crds()

    def wait_for_crds(self) -> None:
        names = [f"crd/{name}.dormouse.dev" for name in CRD_NAMES]
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    def make_sandbox(self) -> str:
        self.wait_for_crds()
        body = {
            "apiVersion": chart.API_VERSION, "kind": "Sandbox", "metadata": {"name": "precious"},
            "spec": {"source": {"image": {"name": "debian-12"}}},
        }  # fmt: skip
        return self.control_plane.expect(self.admin.create(SANDBOXES, body), "make a sandbox").body["metadata"]["uid"]

    def sandbox(self) -> str:
        return self.admin.get(f"{SANDBOXES}/precious").body["metadata"]["uid"]

    def crd(self, name: str) -> dict:
        return self.admin.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}.dormouse.dev").body


@pytest.fixture
def site(tmp_path):
    with ControlPlane(tmp_path) as control_plane:
        yield Site(control_plane)


def owner(crd: dict) -> str:
    return crd["metadata"].get("annotations", {}).get("meta.helm.sh/release-name", "")


def test_crds_that_were_applied_by_hand_are_taken_over_when_that_is_asked_for(site):
    site.apply_crds()
    uid = site.make_sandbox()
    with pytest.raises(chart.ChartError, match="invalid ownership metadata"):
        site.install()
    site.install("--take-ownership")
    assert [owner(site.crd(name)) for name in CRD_NAMES] == [chart.RELEASE] * 3
    assert site.crd("sandboxes")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert site.sandbox() == uid
    site.helm("upgrade", chart.RELEASE, str(chart.CHART), f"--namespace={chart.NAMESPACE}")


def test_crds_that_were_applied_by_hand_can_stay_so(site):
    site.apply_crds()
    uid = site.make_sandbox()
    site.install("--set=crds.enabled=false")
    assert [owner(site.crd(name)) for name in CRD_NAMES] == [""] * 3
    site.helm("uninstall", chart.RELEASE, f"--namespace={chart.NAMESPACE}")
    assert site.sandbox() == uid


def test_what_an_uninstall_keeps_a_reinstall_finds(site):
    site.install()
    uid = site.make_sandbox()
    said = site.helm("uninstall", chart.RELEASE, f"--namespace={chart.NAMESPACE}")
    assert "These resources were kept due to the resource policy" in said and "sandboxes.dormouse.dev" in said
    assert site.kubectl("get", "deployment,daemonset", "-A", "-o", "name").stdout == ""
    assert site.sandbox() == uid
    site.install()
    assert site.sandbox() == uid
    assert site.kubectl("get", "deployment,daemonset", "-n", chart.NAMESPACE, "-o", "name").stdout.split() == [
        "deployment.apps/dormouse-controller", "daemonset.apps/dormouse-agent",
    ]  # fmt: skip


def test_kept_crds_go_to_another_release_when_that_is_asked_for(site):
    site.install()
    uid = site.make_sandbox()
    site.helm("uninstall", chart.RELEASE, f"--namespace={chart.NAMESPACE}")
    with pytest.raises(chart.ChartError, match="invalid ownership metadata"):
        site.install(release="mice", namespace="mice")
    site.install("--take-ownership", release="mice", namespace="mice")
    assert [owner(site.crd(name)) for name in CRD_NAMES] == ["mice"] * 3
    assert site.sandbox() == uid


def test_crds_that_are_not_kept_go_with_the_release(site):
    site.install("--set=crds.keep=false")
    site.make_sandbox()
    site.helm("uninstall", chart.RELEASE, f"--namespace={chart.NAMESPACE}")
    site.kubectl("wait", "--for=delete", "crd/sandboxes.dormouse.dev", "--timeout=60s")


def test_pod_security_admits_the_controller_as_restricted_and_the_agent_as_privileged(site):
    pods = {}
    for item in parsed(chart.render(*HELM_TEST)):
        if item["kind"] in ("Deployment", "DaemonSet"):
            pods[item["metadata"]["name"]] = item["spec"]["template"]
        elif item["kind"] == "Pod":
            pods[item["metadata"]["name"]] = item
    assert pods.keys() == {"dormouse-controller", "dormouse-agent", "dormouse-test-agent", "dormouse-test-cluster"}
    refused = {}
    for level in ("restricted", "privileged"):
        site.kubectl("create", "namespace", level)
        site.kubectl("label", "namespace", level, f"pod-security.kubernetes.io/enforce={level}")
        for account in ("default", "dormouse-controller", "dormouse-agent", "dormouse-test"):
            site.kubectl("create", "serviceaccount", account, "-n", level)
        refused[level] = set()
        for name, template in pods.items():
            # Priority classes of the system are for the namespaces that the administrator says.
            spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
            spec["restartPolicy"] = "Never"
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            answer = site.admin.create(f"/api/v1/namespaces/{level}/pods", pod, dryRun="All", fieldValidation="Strict")
            if not answer.ok:
                assert "violates PodSecurity" in answer.message
                refused[level].add(name)
    assert refused == {"restricted": {"dormouse-agent", "dormouse-test-agent"}, "privileged": set()}


def test_helm_test_waits_for_all_that_a_sandbox_needs(site, tmp_path):
    """Its pod's own commands, with its own account's rights, while the test plays the cluster."""
    site.install(*HELM_TEST)
    site.wait_for_crds()
    hooks = parsed(chart.render(*HELM_TEST))
    made = [item for item in hooks if item["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    by_weight = sorted(made, key=lambda item: int(item["metadata"]["annotations"]["helm.sh/hook-weight"]))
    assert by_weight[-1]["kind"] == "Pod"
    for item in made:
        if item["kind"] != "Pod":
            site.kubectl("apply", "-f", "-", stdin=json.dumps(item))
    token = site.control_plane.service_account_token("dormouse-test")
    config = kubeconfig.write(
        tmp_path / "test.kubeconfig", server=site.control_plane.url, ca_file=site.control_plane.ca_file, user=token,
        namespace=chart.NAMESPACE,
    )  # fmt: skip
    pod = the(hooks, "Pod", "dormouse-test-cluster")["spec"]

    def run(container: dict) -> subprocess.CompletedProcess:
        command = [str(tools.find("kubectl")), f"--kubeconfig={config}", *container["args"]]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def passes() -> set[str]:
        with ThreadPoolExecutor() as side_by_side:
            ended = dict(zip((item["name"] for item in pod["containers"]), side_by_side.map(run, pod["containers"])))
        for name, done in ended.items():
            assert "Forbidden" not in done.stderr, f"{name}: {done.stderr}"
        return {name for name, done in ended.items() if done.returncode == 0}

    def patch(path: str, status: dict) -> None:
        site.control_plane.expect(site.admin.merge(f"{path}/status", {"status": status}), "play a part")

    workloads = f"/apis/apps/v1/namespaces/{chart.NAMESPACE}"
    generation = {"observedGeneration": 1}
    node = {"apiVersion": chart.API_VERSION, "kind": "SandboxNode", "metadata": {"name": "node-a"}}
    patch(f"{workloads}/daemonsets/dormouse-agent",
          {**generation, "currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1,
           "numberReady": 0, "updatedNumberScheduled": 1, "numberAvailable": 0})  # fmt: skip
    assert passes() == set()
    patch(f"{workloads}/daemonsets/dormouse-agent", {"numberReady": 1, "numberAvailable": 1})
    assert passes() == {"agents"}
    patch(f"{workloads}/deployments/dormouse-controller",
          {**generation, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2})  # fmt: skip
    assert passes() == {"agents", "controller"}
    site.control_plane.expect(site.admin.create(NODES, node), "make a node")
    ready = {
        "type": "Ready", "status": "False", "reason": "Test", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    patch(f"{NODES}/node-a", {"conditions": [ready]})
    assert passes() == {"agents", "controller"}
    patch(f"{NODES}/node-a", {"conditions": [{**ready, "status": "True"}]})
    assert passes() == {"agents", "controller", "nodes"}
    sandbox = f"/apis/{chart.API_VERSION}/namespaces/{chart.NAMESPACE}/sandboxes/dormouse-test"
    patch(sandbox, {"conditions": [{**ready, "status": "True"}]})
    assert passes() == {"agents", "controller", "nodes", "sandbox"}
