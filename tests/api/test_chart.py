"""The chart: what helm makes of it, and what its schema refuses."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from bed import chart, tools
from bed.product import program

CRDS = Path(__file__).resolve().parents[2] / "crds"
EVERYTHING = """\
fullnameOverride: dm
commonLabels: {team: platform}
commonAnnotations: {note: "yes"}
imagePullSecrets: [pull]
namespace: {create: true}
flowSchema: {enabled: true}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
grafanaDashboard: {enabled: true, annotations: {grafana_folder: Dormouse}}
networkPolicy:
  enabled: true
  metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]
controller:
  image: {repository: example.com/c, digest: "sha256:0123456789012345678901234567890123456789012345678901234567890123"}
  extraArgs: [--log-level=debug]
  extraEnv: [{name: A, value: b}]
  podLabels: {a: b}
  podAnnotations: {c: d}
  nodeSelector: {disk: ssd}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  serviceAccount: {name: custom-controller, annotations: {e: f}}
  metricsService: {annotations: {g: h}}
agent:
  denyAlways: [192.0.2.0/24, 203.0.113.9/32]
  allowPlatform: [169.254.20.10/32]
  image: {repository: example.com/a, tag: v9}
  vmm: {hostPath: /usr/local/bin/cloud-hypervisor}
  guestKernel: {hostDir: /srv/guest}
  resolvers: [10.96.0.10]
  imagesDir: /srv/images
  healthAddress: ":8083"
  extraArgs: [--log-level=debug]
  extraEnv: [{name: A, value: b}]
  nodeSelector: {sandboxes: "true"}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  serviceAccount: {name: custom-agent}
"""


def parsed(manifests: str) -> list[dict]:
    """YAML as objects, by kubectl without a server: Python's standard library reads no YAML."""
    done = subprocess.run(
        [
            str(tools.find("kubectl")),
            "annotate",
            "--local",
            "-o",
            "json",
            "-f",
            "-",
            "test/parsed=yes",
        ],
        input=manifests,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    decoder, text, objects = json.JSONDecoder(), done.stdout, []
    while text.strip():
        item, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        del item["metadata"]["annotations"]["test/parsed"]
        objects.append(item)
    return objects


@pytest.fixture(scope="module")
def values_of_everything(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("values") / "everything.yaml"
    path.write_text(EVERYTHING, encoding="ascii")
    return path


@pytest.fixture(scope="module")
def default() -> list[dict]:
    return parsed(chart.render())


@pytest.fixture(scope="module")
def everything(values_of_everything) -> list[dict]:
    return parsed(chart.render("--values", str(values_of_everything)))


def the(objects: list[dict], kind: str, name: str) -> dict:
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    assert (
        len(found) == 1
    ), f"{kind} {name}: {[(item['kind'], item['metadata']['name']) for item in objects]}"
    return found[0]


def container(objects: list[dict], kind: str, name: str) -> dict:
    return the(objects, kind, name)["spec"]["template"]["spec"]["containers"][0]


def test_lint_is_content(values_of_everything):
    arguments = ("--strict", "--kube-version", tools.KUBERNETES_VERSION)
    assert "1 chart(s) linted, 0 chart(s) failed" in chart.helm(
        "lint", str(chart.CHART), *arguments
    )
    assert "0 chart(s) failed" in chart.helm(
        "lint", str(chart.CHART), *arguments, "--values", str(values_of_everything)
    )


def test_what_is_rendered_by_default(default):
    kinds = sorted({item["kind"] for item in default})
    assert kinds == [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "DaemonSet",
        "Deployment",
        "Namespace",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    namespace = the(default, "Namespace", chart.NAMESPACE)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_the_api_server_takes_all_that_is_rendered(control_plane, values_of_everything):
    # Another product's kinds, which a bare API server does not know.
    without = frozenset({"ServiceMonitor", "PodMonitor", "PrometheusRule"})
    # The pod of `helm test` runs under it; a controller manager would make it.
    control_plane.kubectl("create", "serviceaccount", "default", "-n", chart.NAMESPACE, check=False)
    for arguments in ((), ("--values", str(values_of_everything))):
        manifests = chart.render(*arguments, leave_out=without)
        control_plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f", "-",
            stdin=manifests,
        )  # fmt: skip


def test_the_crds_of_the_chart_are_those_of_the_folder(default):
    for path in sorted(CRDS.glob("*.yaml")):
        original = parsed(path.read_text(encoding="utf-8"))[0]
        rendered = the(default, "CustomResourceDefinition", original["metadata"]["name"])
        assert rendered["spec"] == original["spec"]
        assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len([item for item in default if item["kind"] == "CustomResourceDefinition"]) == 3


def test_crds_can_be_left_out_and_let_go():
    assert "kind: CustomResourceDefinition" not in chart.render("--set", "crds.enabled=false")
    released = parsed(chart.render("--set", "crds.keep=false"))
    for item in released:
        if item["kind"] == "CustomResourceDefinition":
            assert "helm.sh/resource-policy" not in item["metadata"].get("annotations", {})


def test_no_role_has_a_wildcard(default, everything):
    roles = [item for item in default + everything if item["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == 2 * 10
    for role in roles:
        for rule in role["rules"]:
            for key in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[key], role["metadata"]["name"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert "secrets" not in rule["resources"]


def test_the_controller_meets_the_restricted_standard(default):
    pod = the(default, "Deployment", "dormouse-controller")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_single_controller_does_not_keep_its_node_from_being_drained():
    assert "kind: PodDisruptionBudget" in chart.render()
    assert "kind: PodDisruptionBudget" not in chart.render("--set=controller.replicas=1")


def test_the_controller_runs_twice_and_leads_once(default):
    deployment = the(default, "Deployment", "dormouse-controller")
    assert deployment["spec"]["replicas"] == 2
    assert container(default, "Deployment", "dormouse-controller")["args"] == [
        "--leader-elect",
        "--lease-namespace=$(POD_NAMESPACE)",
        "--health-address=:8081",
        "--metrics-address=:8080",
    ]


def test_the_agent_has_the_node_and_survives_the_api_server(default):
    pod = the(default, "DaemonSet", "dormouse-agent")["spec"]["template"]["spec"]
    assert (
        pod["hostPID"]
        and pod["hostNetwork"]
        and pod["containers"][0]["securityContext"]["privileged"]
    )
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    assert paths == {
        "state": "/var/lib/dormouse",
        "run": "/run/dormouse",
        "dev": "/dev",
        "cgroup": "/sys/fs/cgroup",
    }
    assert {name: mount["mountPath"] for name, mount in mounts.items()} == paths
    assert mounts["run"]["mountPropagation"] == mounts["state"]["mountPropagation"] == "Bidirectional"
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    probe = pod["containers"][0]["livenessProbe"]["httpGet"]
    assert probe == {"path": "/healthz", "port": 8083, "host": "127.0.0.1"}
    args = pod["containers"][0]["args"]
    assert {"--node-name=$(NODE_NAME)", "--disk-overcommit=10", "--host-address-range=10.201.0.0/16"} <= {*args}


@pytest.mark.parametrize("name", ["controller", "agent"])
def test_programs_know_every_flag_that_they_get(everything, name):
    kind = {"controller": "Deployment", "agent": "DaemonSet"}[name]
    said = subprocess.run([program(f"dormouse-{name}"), "--help"], capture_output=True, text=True, timeout=30, check=True)
    known = set(re.findall(r"--[a-z][-a-z]*", said.stdout))
    given = {argument.partition("=")[0] for argument in container(everything, kind, f"dm-{name}")["args"]}
    assert given - known == set()


def test_every_option_reaches_its_object(everything):
    controller = the(everything, "Deployment", "dm-controller")
    agent = the(everything, "DaemonSet", "dm-agent")
    assert container(everything, "Deployment", "dm-controller")["image"].startswith(
        "example.com/c@sha256:0123"
    )
    assert container(everything, "DaemonSet", "dm-agent")["image"] == "example.com/a:v9"
    for workload in (controller, agent):
        pod = workload["spec"]["template"]["spec"]
        assert pod["imagePullSecrets"] == [{"name": "pull"}]
        assert pod["containers"][0]["args"][-1] == "--log-level=debug"
        assert {"name": "A", "value": "b"} in pod["containers"][0]["env"]
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert workload["metadata"]["labels"]["team"] == "platform"
        assert workload["metadata"]["annotations"] == {"note": "yes"}
    args = container(everything, "DaemonSet", "dm-agent")["args"]
    assert "--deny-always=192.0.2.0/24,203.0.113.9/32" in args
    assert "--allow-platform=169.254.20.10/32" in args
    mounts = {
        mount["name"]: mount["mountPath"]
        for mount in container(everything, "DaemonSet", "dm-agent")["volumeMounts"]
    }
    assert mounts["images"] == "/srv/images"
    assert mounts["vmm"] == "/usr/local/bin/cloud-hypervisor" and mounts["guest-kernel"] == "/srv/guest"
    assert {
        "--vmm=/usr/local/bin/cloud-hypervisor", "--kernel=/srv/guest/vmlinuz", "--initramfs=/srv/guest/initramfs",
        "--resolver=10.96.0.10",
    } <= set(container(everything, "DaemonSet", "dm-agent")["args"])  # fmt: skip
    assert "host" not in container(everything, "DaemonSet", "dm-agent")["livenessProbe"]["httpGet"]
    policy = the(everything, "ValidatingAdmissionPolicy", "dm-agent-status")
    expression = policy["spec"]["matchConditions"][0]["expression"]
    assert (
        expression
        == f"request.userInfo.username == 'system:serviceaccount:{chart.NAMESPACE}:custom-agent'"
    )
    for kind, name in (
        ("NetworkPolicy", "dm-controller"),
        ("ServiceMonitor", "dm-controller"),
        ("PodMonitor", "dm-agent"),
        ("PrometheusRule", "dm"),
        ("ConfigMap", "dm-dashboard"),
        ("FlowSchema", "dm"),
        ("PriorityLevelConfiguration", "dm"),
    ):
        the(everything, kind, name)


POLICIES = {
    "dormouse-agent-status",
    "dormouse-agent-node",
    "dormouse-agent-lease",
    "dormouse-agent-event",
    "dormouse-controller-placement",
}


def test_every_policy_refuses_when_it_cannot_decide(default):
    policies = [item for item in default if item["kind"] == "ValidatingAdmissionPolicy"]
    assert {policy["metadata"]["name"] for policy in policies} == POLICIES
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        bound = the(default, "ValidatingAdmissionPolicyBinding", policy["metadata"]["name"])["spec"]
        assert bound["policyName"] == policy["metadata"]["name"] and bound["validationActions"] == ["Deny"]


def test_what_events_are_about_is_checked_where_that_is_asked_for():
    rendered = parsed(chart.render("--set", "admissionPolicy.eventSubjects=true"))
    policies = {item["metadata"]["name"]: item for item in rendered if item["kind"] == "ValidatingAdmissionPolicy"}
    more = {"dormouse-agent-event-sandbox", "dormouse-agent-event-template"}
    assert policies.keys() == POLICIES | more
    for name in more:
        assert policies[name]["spec"]["failurePolicy"] == "Fail"


NONSENSE = [
    # Each once: helm says all that is wrong in one go.
    {
        "controler.replicas": "2",
        "controller.replicas": "0",
        "controller.healthPort": "99999",
        "controller.image.pullPolicy": "Sometimes",
        "controller.image.digest": "latest",
        "controller.image.repository": "",
        "agent.stateDir": "var/lib/dormouse",
        "agent.hostAddressRange": "10.0.0.0/24",
        "agent.healthAddress": "8083",
        "agent.vmm.hostPath": "bin/cloud-hypervisor",
        "agent.guestKernel.hostDir": "guest",
        "agent.resolvers": "{dns.example.com}",
        "tests.timeout": "soon",
        "tests.sandboxImage": "Debian",
        "agent.extraArgs": "{debug}",
        "agent.maxUnavailable": "ten",
        "agent.diskOvercommit": "0",
        "namespace.podSecurity": "none",
        "flowSchema.matchingPrecedence": "0",
        "crds.keep": "perhaps",
    },
    {
        "controller.replicas": "two",
        "agent.hostAddressRange": "anything",
        "agent.denyAlways": "{example.com}",
        "agent.allowPlatform": "{169.254.20.10}",
        "controller.serviceMonitor": "true",
    },
]


@pytest.mark.parametrize("values", NONSENSE)
def test_the_schema_refuses_nonsense_and_says_where(values):
    with pytest.raises(
        chart.ChartError, match="values don't meet the specifications of the schema"
    ) as refused:
        chart.render(*(f"--set={key}={value}" for key, value in values.items()))
    complaint = str(refused.value)
    for key in values:
        # A key that is not there is named alone, as something that its parent does not have.
        path, _, last = key.rpartition(".")
        unknown = (
            f"'{key.partition('.')[0]}' not allowed" in complaint
            or f"'{last}' not allowed" in complaint
        )
        assert f"at '/{key.replace('.', '/')}" in complaint or unknown, f"{key}: {complaint}"


def test_every_value_has_a_place_in_the_schema():
    schema = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: v}\nvalues:\n"
    text += "".join(f"  {line}" for line in (chart.CHART / "values.yaml").open(encoding="utf-8"))
    values = parsed(text)[0]["values"]

    def compare(value: dict, known: dict, path: str):
        known = schema["$defs"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
        if "properties" not in known or not isinstance(value, dict):
            return
        assert known["additionalProperties"] is False, path
        for key, inner in value.items():
            assert key in known["properties"], f"{path}.{key}"
            compare(inner, known["properties"][key], f"{path}.{key}")

    compare(values, schema, "values")
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_every_value_has_a_comment():
    lines = (chart.CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    silent = []
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        # One comment speaks for the parts of a pod's resources; a group is explained above it or by
        # its members.
        if (
            not line
            or line.lstrip().startswith("#")
            or line.lstrip().startswith(("requests:", "limits:"))
        ):
            continue
        group = (
            number + 1 < len(lines)
            and len(lines[number + 1]) - len(lines[number + 1].lstrip()) > indent
        )
        if not group and not lines[number - 1].lstrip().startswith("#"):
            silent.append(line)
    assert silent == []


@pytest.mark.parametrize("values", ["default", "everything"])
def test_what_is_rendered_has_been_looked_at(values, values_of_everything):
    """Compared with tests/api/golden, so that a change of the chart is seen as what it makes. DORMOUSE_GOLDEN=write takes
    what is rendered for right: read its diff."""
    arguments = ("--values", str(values_of_everything)) if values == "everything" else ()
    rendered = chart.render(*arguments, leave_out=frozenset({"CustomResourceDefinition"}))
    golden = Path(__file__).parent / "golden" / f"{values}.yaml"
    if os.environ.get("DORMOUSE_GOLDEN") == "write":
        golden.write_text(rendered, encoding="utf-8")
    expected = golden.read_text(encoding="utf-8")
    difference = "\n".join(difflib.unified_diff(expected.splitlines(), rendered.splitlines(), "golden", "rendered", n=2, lineterm=""))
    assert not difference, difference
