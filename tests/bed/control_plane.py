"""The control plane of the tests and the demo: a real API server with our API and the chart's own
roles and policies.

with ControlPlane(folder) as control_plane:
    control_plane.install_dormouse()
    control_plane.agent_kubeconfig("node-a", folder / "agent", server=control_plane.url_from_qemu)

python3 -m bed.control_plane --state-dir DIR up      # leaves it running; prints the KUBECONFIG line
python3 -m bed.control_plane --state-dir DIR status
python3 -m bed.control_plane --state-dir DIR down    # ends it by pid
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bed import chart, kubeconfig, tools
from bed.certificates import CertificateError
from bed.daemons import DaemonError
from bed.kubernetes_api import KubernetesApi, KubernetesApiError

TOKEN_SECONDS = 7 * 24 * 3600


class ControlPlane(KubernetesApi):
    """A KubernetesApi that knows Dormouse."""

    def install_dormouse(self, *helm_arguments: str) -> None:
        """CRDs, service accounts, roles and admission policies as the chart renders them; returns
        when all are in force.

        No Deployment and no DaemonSet: there is nothing here that would run them.
        """
        manifests = chart.render(*helm_arguments, leave_out=chart.WORKLOADS)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
        names = [
            f"crd/{name}.dormouse.dev"
            for name in ("sandboxes", "snapshottemplates", "sandboxnodes")
        ]
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        self._wait_for_policies()

    def _wait_for_policies(self) -> None:
        """Until each policy refuses what it must: an agent without a node, and an administrator who places by hand,
        asked with dry runs."""
        agent = self.admin.impersonating(
            f"system:serviceaccount:{chart.NAMESPACE}:{chart.AGENT_ACCOUNT}"
        )
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "probe"},
        }
        node = {
            "apiVersion": chart.API_VERSION,
            "kind": "SandboxNode",
            "metadata": {"name": "probe"},
        }
        sandbox = {
            "apiVersion": chart.API_VERSION,
            "kind": "Sandbox",
            "metadata": {"name": "policy-probe"},
            "spec": {"source": {"image": {"name": "none"}}},
        }
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "probe", "namespace": chart.NAMESPACE},
            "eventTime": "2026-01-02T03:04:05.000000Z",
            "type": "Normal",
            "reason": "Probe",
            "action": "Probe",
            "reportingController": "dormouse.dev/test-bed",
            "reportingInstance": "test-bed",
            "regarding": {"kind": "Namespace", "name": chart.NAMESPACE, "namespace": chart.NAMESPACE},
        }
        events = f"/apis/events.k8s.io/v1/namespaces/{chart.NAMESPACE}/events"
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAMESPACE}/leases"
        sandboxes = f"/apis/{chart.API_VERSION}/namespaces/{chart.NAMESPACE}/sandboxes"
        self.expect(
            self.admin.apply(f"{sandboxes}/policy-probe", sandbox, "test-bed"), "make a probe"
        )
        status = {"status": {"phase": "Running"}}
        probes = {
            "sandboxes": lambda: agent.merge(
                f"{sandboxes}/policy-probe/status", status, dryRun="All"
            ),
            "nodes": lambda: agent.create(
                f"/apis/{chart.API_VERSION}/sandboxnodes", node, dryRun="All"
            ),
            "leases": lambda: agent.create(leases, lease, dryRun="All"),
            "events": lambda: agent.create(events, event, dryRun="All"),
            "placement": lambda: self.admin.merge(
                f"{sandboxes}/policy-probe/status", {"status": {"nodeName": "probe"}}, dryRun="All"
            ),
        }
        for name, probe in probes.items():
            self.wait_until(
                lambda probe=probe: "ValidatingAdmissionPolicy" in probe().message,
                f"the policy on {name}",
            )
        self.expect(self.admin.delete(f"{sandboxes}/policy-probe"), "delete the probe")

    def create_node(self, name: str, labels: dict[str, str] | None = None) -> None:
        """A Kubernetes Node object made by hand; one that exists stays as it is."""
        node = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        }
        answer = self.admin.create("/api/v1/nodes", node)
        if answer.status != 409:
            self.expect(answer, f"create the Node {name}")

    def controller_token(self) -> str:
        return self.service_account_token(chart.CONTROLLER_ACCOUNT)

    def agent_token(self, node: str) -> str:
        """A token of the agent's service account, bound to the Node object of that name, which is
        made if need be."""
        self.create_node(node)
        uid = self.admin.get(f"/api/v1/nodes/{node}").body["metadata"]["uid"]
        return self.service_account_token(
            chart.AGENT_ACCOUNT, {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        )

    def service_account_token(self, account: str, bound_to: dict | None = None) -> str:
        """By TokenRequest, for an account of the chart's namespace; `bound_to` is the
        boundObjectRef."""
        spec: dict = {"expirationSeconds": TOKEN_SECONDS}
        if bound_to:
            spec["boundObjectRef"] = bound_to
        path = f"/api/v1/namespaces/{chart.NAMESPACE}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.expect(self.admin.create(path, request), f"make a token for {account}")
        return answer.body["status"]["token"]

    def controller_kubeconfig(self, path: Path, *, server: str | None = None) -> Path:
        return self._kubeconfig(path, self.controller_token(), server)

    def agent_kubeconfig(self, node: str, path: Path, *, server: str | None = None) -> Path:
        """For the agent of `node`; one that runs in a QEMU machine needs server=url_from_qemu."""
        return self._kubeconfig(path, self.agent_token(node), server)

    def _kubeconfig(self, path: Path, token: str, server: str | None) -> Path:
        return kubeconfig.write(
            path,
            server=server or self.url,
            ca_file=self.ca_file,
            user=token,
            namespace=chart.NAMESPACE,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        required=True,
        help="certificates, etcd's data, logs and pid files",
    )
    parser.add_argument("action", choices=["up", "down", "status"])
    options = parser.parse_args()
    control_plane = ControlPlane(options.state_dir)
    if options.action == "down":
        control_plane.stop()
        return 0
    if options.action == "status":
        print("running" if control_plane.running() else "not running")
        return 0 if control_plane.running() else 1
    try:
        control_plane.start(die_with_parent=False)
        control_plane.install_dormouse()
    except (
        KubernetesApiError,
        CertificateError,
        DaemonError,
        chart.ChartError,
        tools.ToolError,
    ) as error:
        control_plane.stop()
        print(f"control plane: {error}", file=sys.stderr)
        return 1
    print(f"export KUBECONFIG={control_plane.admin_kubeconfig}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
