"""etcd and a real kube-apiserver on the loopback address, with RBAC on.

Started, broken on purpose, and ended. Works in an empty network namespace whose `lo` is up, as well as
outside. A QEMU machine with user-mode networking reaches it under `url_from_qemu`. Not thread-safe, but
for `admin` and `kubectl`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable

from bed import kubeconfig, tools
from bed.api_client import Answer, ApiClient
from bed.certificates import CertificateAuthority, KeyPair, make_key, make_public_key
from bed.daemons import Daemon, DaemonError

# QEMU's user-mode network shows the host's loopback under this address.
QEMU_HOST = "10.0.2.2"
SERVICE_RANGE = "10.96.0.0/16"
SERVER_NAMES = (
    "IP:127.0.0.1",
    f"IP:{QEMU_HOST}",
    "IP:10.96.0.1",
    "DNS:localhost",
    "DNS:kubernetes.default.svc",
)
START_TIMEOUT_SECONDS = 90


class KubernetesApiError(RuntimeError):
    """The API server did not do what was asked; the message holds the end of the log that
    matters."""


class KubernetesApi:
    """One API server and its etcd. What it writes stays in `state_dir`; a second object on it finds
    them again."""

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

    # --- life -------------------------------------------------------------------------------------

    def start(self, *, die_with_parent: bool = True) -> None:
        """Starts both and returns when the API server is ready; on failure nothing is left
        running."""
        self._die_with_parent = die_with_parent
        tools.find("kube-apiserver")  # may build for minutes: before the clock of readiness runs
        if not shutil.which("etcd"):
            raise KubernetesApiError("etcd is not on PATH: apt-get install etcd-server")
        self.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            for attempt in range(3):
                try:
                    self._start_once(new_ports=attempt > 0)
                    return
                except (
                    DaemonError
                ):  # most likely another process took a port between our look and its use
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
        self._etcd.start(
            self._etcd_command(), die_with_parent=self._die_with_parent, env=_etcd_environment()
        )
        self.start_api_server()

    def stop(self) -> None:
        """Ends both. What they wrote stays. Harmless when nothing runs."""
        self._api_server.stop(grace_seconds=0)  # a grace would wait for every watch
        self._etcd.stop()

    def __enter__(self) -> "KubernetesApi":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- faults -----------------------------------------------------------------------------------

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
        """Stops it in its tracks: connections stay open and answer nothing (a half-open network, a
        hung server)."""
        self._api_server.signal(signal.SIGSTOP)

    def thaw_api_server(self) -> None:
        self._api_server.signal(signal.SIGCONT)
        self.wait_ready()

    def compact_etcd(self) -> None:
        """Forgets every revision but the newest. With `restart_api_server`, all that was watched
        before is 410."""
        revision = self._etcd_call("kv/range", {"key": base64.b64encode(b"compact").decode()})[
            "header"
        ]["revision"]
        self._etcd_call("kv/compaction", {"revision": revision, "physical": True})

    def forget_history(self) -> None:
        """Makes any watch that resumes from a version before this call get 410 Gone."""
        path = "/api/v1/namespaces/default/configmaps"
        name = "history-moves-on"
        # A watch at the newest version of all could still be served: so there is one write more.
        self.admin.delete(f"{path}/{name}")
        self.expect(self.admin.create(path, {"metadata": {"name": name}}), "create a ConfigMap")
        self.expect(self.admin.delete(f"{path}/{name}"), "delete a ConfigMap")
        self.compact_etcd()
        self.restart_api_server()

    def save_etcd(self, file: Path) -> None:
        """All objects as they are now, by the means of an operator's backup."""
        admin = self._pair("admin")
        self._etcdctl(
            f"--endpoints=https://127.0.0.1:{self._ports['etcd']}",
            f"--cacert={self.ca_file}",
            f"--cert={admin.cert}",
            f"--key={admin.key}",
            "snapshot",
            "save",
            str(file),
        )

    def restore_etcd(self, file: Path) -> None:
        """All objects as they were then, resourceVersions included. Both processes begin anew, as
        etcd's and Kubernetes' documentation ask for."""
        self._api_server.stop(grace_seconds=0)
        self._etcd.stop()
        data = self.state_dir / "etcd"
        shutil.rmtree(data)
        peer_url = f"http://127.0.0.1:{self._ports['etcd_peer']}"
        self._etcdctl(
            "snapshot",
            "restore",
            str(file),
            f"--data-dir={data}",
            "--name=test-bed",
            f"--initial-cluster=test-bed={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
        )
        self._etcd.start(
            self._etcd_command(), die_with_parent=self._die_with_parent, env=_etcd_environment()
        )
        self.start_api_server()

    def _etcdctl(self, *arguments: str) -> None:
        done = subprocess.run(
            ["etcdctl", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**_etcd_environment(), "ETCDCTL_API": "3"},
        )
        if done.returncode != 0:
            raise KubernetesApiError(f"etcdctl {' '.join(arguments)}: {done.stderr.strip()}")

    # --- who and where ----------------------------------------------------------------------------

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

    # --- for tests --------------------------------------------------------------------------------

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess:
        """kubectl as the administrator; stdout and stderr are in the result as text."""
        done = subprocess.run(
            [str(tools.find("kubectl")), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            # HOME: its discovery cache belongs to this API server, and not to the user.
            env={
                **os.environ,
                "KUBECONFIG": str(self.admin_kubeconfig),
                "HOME": str(self.state_dir),
            },
        )
        if check and done.returncode != 0:
            raise KubernetesApiError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    @staticmethod
    def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Asks again and again: for what the API server takes up a moment after it was written."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise KubernetesApiError(f"{what}: not in force after {seconds:.0f} s")
            time.sleep(0.1)

    @staticmethod
    def expect(answer: Answer, what: str) -> Answer:
        if not answer.ok:
            raise KubernetesApiError(f"{what}: {answer.status} {answer.message}")
        return answer

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _state_file(self) -> Path:
        return self.state_dir / "control-plane.json"

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(
            self.state_dir / "pki" / f"{name}.crt", self.state_dir / "pki" / f"{name}.key"
        )

    def _make_certificates(self) -> None:
        CertificateAuthority.create(self._authority.folder, "dormouse-test-bed")
        self._authority.issue("server", "kube-apiserver", names=SERVER_NAMES)
        self._authority.issue("admin", "dormouse-admin", organization="system:masters")
        make_key(self._pair("service-accounts").key)
        make_public_key(
            self._pair("service-accounts").key, self._authority.folder / "service-accounts.pub"
        )

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
        return [
            str(shutil.which("etcd")),
            *(f"--{name}={value}" for name, value in flags.items()),
            *_etcd_unsafe(),
        ]

    def _api_server_command(self) -> list[str]:
        server, admin, accounts = (
            self._pair("server"),
            self._pair("admin"),
            self._pair("service-accounts"),
        )
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
        """Until /readyz answers ok. Raises DaemonError when a process has ended, KubernetesApiError
        after 90 s."""
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
                raise KubernetesApiError(
                    f"the API server is not ready:\n{self._api_server.log_tail()}"
                )
            time.sleep(0.1)

    def _etcd_call(self, method: str, body: dict) -> dict:
        """etcd's JSON gateway: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        admin = self._pair("admin")
        context.load_cert_chain(admin.cert, admin.key)
        request = urllib.request.Request(
            f"https://127.0.0.1:{self._ports['etcd']}/v3/{method}",
            data=json.dumps(body).encode(),
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise KubernetesApiError(
                f"etcd {method}: {error.read().decode(errors='replace')}"
            ) from error

    def _write_admin_kubeconfig(self) -> None:
        kubeconfig.write(
            self.admin_kubeconfig, server=self.url, ca_file=self.ca_file, user=self._pair("admin")
        )


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; all are held until the last is known, so that they
    differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _etcd_unsafe() -> list[str]:
    """Nobody needs a test's objects after a power cut. etcd knows the flag from 3.5 on; Debian 12
    has 3.4."""
    answer = subprocess.run(
        ["etcd", "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    return ["--unsafe-no-fsync"] if "unsafe-no-fsync" in answer.stdout + answer.stderr else []


def _etcd_environment() -> dict[str, str]:
    """Debian's etcd reads ETCD_* variables too, and refuses an architecture other than amd64
    without being asked."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
    if tools.ARCH != "amd64":
        environment["ETCD_UNSUPPORTED_ARCH"] = tools.ARCH
    return environment
