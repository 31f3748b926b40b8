"""etcd and a real kube-apiserver on the loopback address, with RBAC on, our API and the chart's own roles and policies.

    with ControlPlane(folder) as control_plane:
        control_plane.install_dormouse()
        control_plane.agent_kubeconfig("node-a", folder / "agent.kubeconfig", server=control_plane.url_from_qemu)

    python3 -m bed.control_plane --state-dir DIR up      # leaves it running; prints the KUBECONFIG line
    python3 -m bed.control_plane --state-dir DIR down    # ends it by pid

Works in an empty network namespace whose `lo` is up, as well as outside. A QEMU machine with user-mode networking
reaches it under `url_from_qemu`. Not thread-safe, but for `admin` and `kubectl`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable

from bed import chart, tools
from bed.api_client import Answer, ApiClient
from bed.certificates import CertificateAuthority, KeyPair, make_key, make_public_key
from bed.daemons import Daemon, DaemonError

# QEMU's user-mode network shows the host's loopback under this address.
QEMU_HOST = "10.0.2.2"
SERVICE_RANGE = "10.96.0.0/16"
SERVER_NAMES = ("IP:127.0.0.1", f"IP:{QEMU_HOST}", "IP:10.96.0.1", "DNS:localhost", "DNS:kubernetes.default.svc")
START_TIMEOUT_SECONDS = 90
TOKEN_SECONDS = 7 * 24 * 3600


class ControlPlaneError(RuntimeError):
    """The control plane did not do what was asked; the message holds the end of the log that matters."""


class ControlPlane:
    """One API server and its etcd. What it writes stays in `state_dir`; a second object on it finds them again."""

    def __init__(self, state_dir: Path | str, *, extra_flags: tuple[str, ...] = ()) -> None:
        self.state_dir = Path(state_dir).resolve()
        self.extra_flags = extra_flags
        self._etcd = Daemon("etcd", self.state_dir)
        self._api_server = Daemon("kube-apiserver", self.state_dir)
        self._authority = CertificateAuthority(self.state_dir / "pki")
        self._die_with_parent = True
        self._ports: dict[str, int] = {}
        if self._state_file.exists():
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            self._ports = state["ports"]
            self._die_with_parent = state["die_with_parent"]
            self.extra_flags = self.extra_flags or tuple(state["extra_flags"])

    # --- life ------------------------------------------------------------------------------------------------

    def start(self, *, die_with_parent: bool = True) -> None:
        """Starts both and returns when the API server is ready; on failure nothing is left running."""
        self._die_with_parent = die_with_parent
        tools.find("kube-apiserver")  # may build for minutes: before the clock of readiness runs
        if not shutil.which("etcd"):
            raise ControlPlaneError("etcd is not on PATH: apt-get install etcd-server")
        self.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            for attempt in range(3):
                try:
                    self._start_once(new_ports=attempt > 0)
                    return
                except DaemonError:  # most likely another process took a port between our look and its use
                    self.stop()
                    if attempt == 2:
                        raise
        except BaseException:
            self.stop()
            raise

    def _start_once(self, new_ports: bool) -> None:
        if not self._ports or new_ports:
            etcd, etcd_peer, secure = _free_ports(3)
            self._ports = {"etcd": etcd, "etcd_peer": etcd_peer, "secure": secure}
        state = {
            "ports": self._ports,
            "die_with_parent": self._die_with_parent,
            "extra_flags": self.extra_flags,
        }
        self._state_file.write_text(json.dumps(state), encoding="utf-8")
        if not self._authority.cert.exists():
            self._make_certificates()
        self._write_admin_kubeconfig()
        self._etcd.start(self._etcd_command(), die_with_parent=self._die_with_parent, env=_etcd_environment())
        self.start_api_server()

    def stop(self) -> None:
        """Ends both. What they wrote stays. Harmless when nothing runs."""
        self._api_server.stop(grace_seconds=0)  # a grace would wait for every watch
        self._etcd.stop()

    def __enter__(self) -> "ControlPlane":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- faults ----------------------------------------------------------------------------------------------

    def stop_api_server(self) -> None:
        """As a crash: connections break at once, then new ones are refused. etcd stays."""
        self._api_server.stop(grace_seconds=0)

    def start_api_server(self) -> None:
        """Starts it again, on the same port, and waits until it is ready."""
        self._api_server.start(self._api_server_command(), die_with_parent=self._die_with_parent)
        self.wait_ready()

    def restart_api_server(self) -> None:
        """What it knew of the past is gone: a watch from before the newest write gets 410."""
        self.stop_api_server()
        self.start_api_server()

    def freeze_api_server(self) -> None:
        """Stops it in its tracks: connections stay open and answer nothing (a half-open network, a hung server)."""
        self._api_server.signal(signal.SIGSTOP)

    def thaw_api_server(self) -> None:
        self._api_server.signal(signal.SIGCONT)
        self.wait_ready()

    def compact_etcd(self) -> None:
        """Forgets every revision but the newest. With `restart_api_server`, all that was watched before is 410."""
        revision = self._etcd_call("kv/range", {"key": base64.b64encode(b"compact").decode()})["header"]["revision"]
        self._etcd_call("kv/compaction", {"revision": revision, "physical": True})

    def forget_history(self) -> None:
        """Makes any watch that resumes from a version before this call get 410 Gone."""
        path = "/api/v1/namespaces/default/configmaps"
        name = "history-moves-on"
        # A watch at the newest version of all could still be served: so there is one write more.
        self.admin.delete(f"{path}/{name}")
        self._expect(self.admin.create(path, {"metadata": {"name": name}}), "create a ConfigMap")
        self._expect(self.admin.delete(f"{path}/{name}"), "delete a ConfigMap")
        self.compact_etcd()
        self.restart_api_server()

    # --- who and where ---------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self._ports["secure"]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def url_from_qemu(self) -> str:
        return f"https://{QEMU_HOST}:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self._authority.cert

    @property
    def admin_kubeconfig(self) -> Path:
        return self.state_dir / "admin.kubeconfig"

    @property
    def admin(self) -> ApiClient:
        pair = self._pair("admin")
        return ApiClient(self.url, self.ca_file, pair.cert, pair.key)

    def as_token(self, token: str) -> ApiClient:
        return ApiClient(self.url, self.ca_file, token=token)

    def running(self) -> bool:
        return self._etcd.running() and self._api_server.running()

    def api_server_pid(self) -> int | None:
        return self._api_server.pid()

    # --- Dormouse on it --------------------------------------------------------------------------------------

    def install_dormouse(self, *helm_arguments: str) -> None:
        """CRDs, service accounts, roles and admission policies as the chart renders them; returns when all are in force.

        No Deployment and no DaemonSet: there is nothing here that would run them.
        """
        manifests = chart.render(*helm_arguments, leave_out=chart.WORKLOADS)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
        names = [f"crd/{name}.dormouse.dev" for name in ("sandboxes", "snapshottemplates", "sandboxnodes")]
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        self._wait_for_policies()

    def _wait_for_policies(self) -> None:
        """Until each policy refuses what it must: an agent without a node, asked with dry runs."""
        agent = self.admin.impersonating(f"system:serviceaccount:{chart.NAMESPACE}:{chart.AGENT_ACCOUNT}")
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "probe"}}
        node = {"apiVersion": chart.API_VERSION, "kind": "SandboxNode", "metadata": {"name": "probe"}}
        sandbox = {
            "apiVersion": chart.API_VERSION,
            "kind": "Sandbox",
            "metadata": {"name": "policy-probe"},
            "spec": {"source": {"image": {"name": "none"}}},
        }
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAMESPACE}/leases"
        sandboxes = f"/apis/{chart.API_VERSION}/namespaces/{chart.NAMESPACE}/sandboxes"
        self._expect(self.admin.apply(f"{sandboxes}/policy-probe", sandbox, "test-bed"), "make a probe")
        status = {"status": {"phase": "Running"}}
        probes = {
            "sandboxes": lambda: agent.merge(f"{sandboxes}/policy-probe/status", status, dryRun="All"),
            "nodes": lambda: agent.create(f"/apis/{chart.API_VERSION}/sandboxnodes", node, dryRun="All"),
            "leases": lambda: agent.create(leases, lease, dryRun="All"),
        }
        for name, probe in probes.items():
            self.wait_until(lambda probe=probe: "ValidatingAdmissionPolicy" in probe().message, f"the policy on {name}")
        self._expect(self.admin.delete(f"{sandboxes}/policy-probe"), "delete the probe")

    def create_node(self, name: str, labels: dict[str, str] | None = None) -> None:
        """A Kubernetes Node object made by hand; one that exists stays as it is."""
        node = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}}
        answer = self.admin.create("/api/v1/nodes", node)
        if answer.status != 409:
            self._expect(answer, f"create the Node {name}")

    @staticmethod
    def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Asks again and again: for what the API server takes up a moment after it was written."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{what}: not in force after {seconds:.0f} s")
            time.sleep(0.1)

    def controller_token(self) -> str:
        return self.service_account_token(chart.CONTROLLER_ACCOUNT)

    def agent_token(self, node: str) -> str:
        """A token of the agent's service account, bound to the Node object of that name, which is made if need be."""
        self.create_node(node)
        uid = self.admin.get(f"/api/v1/nodes/{node}").body["metadata"]["uid"]
        return self.service_account_token(chart.AGENT_ACCOUNT, {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid})

    def service_account_token(self, account: str, bound_to: dict | None = None) -> str:
        """By TokenRequest, for an account of the chart's namespace; `bound_to` is the boundObjectRef."""
        spec: dict = {"expirationSeconds": TOKEN_SECONDS}
        if bound_to:
            spec["boundObjectRef"] = bound_to
        path = f"/api/v1/namespaces/{chart.NAMESPACE}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self._expect(self.admin.create(path, request), f"make a token for {account}")
        return answer.body["status"]["token"]

    def controller_kubeconfig(self, path: Path, *, server: str | None = None) -> Path:
        return self._write_kubeconfig(path, f"token: {self.controller_token()}", server, chart.NAMESPACE)

    def agent_kubeconfig(self, node: str, path: Path, *, server: str | None = None) -> Path:
        """For the agent of `node`; one that runs in a QEMU machine needs server=url_from_qemu."""
        return self._write_kubeconfig(path, f"token: {self.agent_token(node)}", server, chart.NAMESPACE)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess:
        """kubectl as the administrator; stdout and stderr are in the result as text."""
        done = subprocess.run(
            [str(tools.find("kubectl")), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            # HOME: its discovery cache belongs to this API server, and not to the user.
            env={**os.environ, "KUBECONFIG": str(self.admin_kubeconfig), "HOME": str(self.state_dir)},
        )
        if check and done.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    # --- inside ----------------------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.state_dir / "control-plane.json"

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.state_dir / "pki" / f"{name}.crt", self.state_dir / "pki" / f"{name}.key")

    def _make_certificates(self) -> None:
        CertificateAuthority.create(self._authority.folder, "dormouse-test-bed")
        self._authority.issue("server", "kube-apiserver", names=SERVER_NAMES)
        self._authority.issue("admin", "dormouse-admin", organization="system:masters")
        make_key(self._pair("service-accounts").key)
        make_public_key(self._pair("service-accounts").key, self._authority.folder / "service-accounts.pub")

    def _etcd_command(self) -> list[str]:
        server = self._pair("server")
        client_url = f"https://127.0.0.1:{self._ports['etcd']}"
        peer_url = f"http://127.0.0.1:{self._ports['etcd_peer']}"
        flags = {
            "name": "test-bed",
            "data-dir": self.state_dir / "etcd",
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"test-bed={peer_url}",
            "client-cert-auth": "true",
            "trusted-ca-file": self.ca_file,
            "cert-file": server.cert,
            "key-file": server.key,
        }
        return [str(shutil.which("etcd")), *(f"--{name}={value}" for name, value in flags.items()), *_etcd_unsafe()]

    def _api_server_command(self) -> list[str]:
        server, admin, accounts = self._pair("server"), self._pair("admin"), self._pair("service-accounts")
        flags = {
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            # Without a default route it finds no address of its own to announce.
            "advertise-address": QEMU_HOST,
            "cert-dir": self.state_dir / "apiserver",
            "tls-cert-file": server.cert,
            "tls-private-key-file": server.key,
            "client-ca-file": self.ca_file,
            "etcd-servers": f"https://127.0.0.1:{self._ports['etcd']}",
            "etcd-cafile": self.ca_file,
            "etcd-certfile": admin.cert,
            "etcd-keyfile": admin.key,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._authority.folder / "service-accounts.pub",
            "service-account-signing-key-file": accounts.key,
            "service-cluster-ip-range": SERVICE_RANGE,
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
        }
        command = [f"--{name}={value}" for name, value in flags.items()]
        return [str(tools.find("kube-apiserver")), *command, *self.extra_flags]

    def wait_ready(self) -> None:
        """Until /readyz answers ok. Raises DaemonError when a process has ended, ControlPlaneError after 90 s."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            for daemon in (self._etcd, self._api_server):
                if not daemon.running():
                    raise DaemonError(f"{daemon.name} ended:\n{daemon.log_tail()}")
            try:
                if self.admin.get("/readyz").status == 200:
                    return
            except OSError:
                pass  # does not listen yet
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"the API server is not ready:\n{self._api_server.log_tail()}")
            time.sleep(0.1)

    def _etcd_call(self, method: str, body: dict) -> dict:
        """etcd's JSON gateway: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        admin = self._pair("admin")
        context.load_cert_chain(admin.cert, admin.key)
        request = urllib.request.Request(
            f"https://127.0.0.1:{self._ports['etcd']}/v3/{method}", data=json.dumps(body).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ControlPlaneError(f"etcd {method}: {error.read().decode(errors='replace')}") from error

    def _write_admin_kubeconfig(self) -> None:
        pair = self._pair("admin")
        user = f"client-certificate-data: {_base64(pair.cert)}\n    client-key-data: {_base64(pair.key)}"
        self._write_kubeconfig(self.admin_kubeconfig, user, None, "default")

    def _write_kubeconfig(self, path: Path, user: str, server: str | None, namespace: str) -> Path:
        """Holds everything itself, so that it can be copied into a node."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(
            f"""\
apiVersion: v1
kind: Config
current-context: dormouse
clusters:
- name: dormouse
  cluster:
    server: {server or self.url}
    certificate-authority-data: {_base64(self.ca_file)}
users:
- name: dormouse
  user:
    {user}
contexts:
- name: dormouse
  context:
    cluster: dormouse
    user: dormouse
    namespace: {namespace}
""",
            encoding="ascii",
        )
        return path

    @staticmethod
    def _expect(answer: Answer, what: str) -> Answer:
        if not answer.ok:
            raise ControlPlaneError(f"{what}: {answer.status} {answer.message}")
        return answer


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; all are held until the last is known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _etcd_unsafe() -> list[str]:
    """Nobody needs a test's objects after a power cut. etcd knows the flag from 3.5 on; Debian 12 has 3.4."""
    answer = subprocess.run(["etcd", "--help"], capture_output=True, text=True, timeout=30, check=False)
    return ["--unsafe-no-fsync"] if "unsafe-no-fsync" in answer.stdout + answer.stderr else []


def _etcd_environment() -> dict[str, str]:
    """Debian's etcd reads ETCD_* variables too, and refuses an architecture other than amd64 without being asked."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
    if tools.ARCH != "amd64":
        environment["ETCD_UNSUPPORTED_ARCH"] = tools.ARCH
    return environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state-dir", type=Path, required=True, help="certificates, etcd's data, logs and pid files")
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
    except (ControlPlaneError, DaemonError, chart.ChartError, tools.ToolError) as error:
        control_plane.stop()
        print(f"control plane: {error}", file=sys.stderr)
        return 1
    print(f"export KUBECONFIG={control_plane.admin_kubeconfig}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
