"""A whole Dormouse: API server, controller, and one node with an agent and a VMM.

    with Cluster(folder) as cluster:
        cluster.apply(sandbox("web"))
        cluster.wait_ready("web")
        cluster.exec("web", ["uname", "-a"]).stdout
        cluster.kill_agent(); cluster.start_agent()
        assert not cluster.leaks()

etcd, kube-apiserver and the controller run on the host, the agent in the node, held as its pod
would hold it (on_node/agent-pod). Everything is real but, where there is none, the VMM:
`cluster.vmm.real` says so. Not thread-safe, but for kubectl, get, exec and ctl.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from bed import leaks as leak_rules
from bed.control_plane import ControlPlane
from bed.controller import Controller
from bed.eventually import eventually
from bed.host_node import HostNode
from bed.layout import Layout
from bed.manifests import PLURALS, SANDBOXES, TEMPLATES, object_path
from bed.node import Node
from bed.node_cli import leave_running
from bed.product import choose_vmm, node_parts, program

NODE_NAME = "node-a"
HEALTH_PORT, METRICS_PORT = 8083, 8084
ON_NODE = Path(__file__).parent / "on_node"
QEMU = Layout()
AGENT_POD = f"{QEMU.parts}/bed/agent-pod"
LIST_OWNED = f"{QEMU.parts}/bed/list-owned"
AGENT_THREADS = f"{QEMU.parts}/bed/agent-threads"
AGENT_LOG = QEMU.log
IMAGES = QEMU.images
FAILPOINTS = "/run/dormouse-failpoints"
TRACE = "/run/dormouse-failpoints-trace"
FLIPPED_AT = 5 << 20  # in chunk 2 of a memory
# As the chart sets them: only the API server's authority is trusted.
AGENT_ENVIRONMENT = {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/nonexistent"}
# The slowest thing there is: a guest's boot in an emulated node that does ten of them at once.
READY_SECONDS = 180
GONE_SECONDS = 90


class Cluster:
    def __init__(
        self,
        folder: Path,
        *,
        vmm: str = "auto",
        agent_flags: Sequence[str] = (),
        extra_parts: Mapping[str, Path] | None = None,
        outlives_us: bool = False,
        on_host: bool = False,
        **node_options,
    ) -> None:
        """Nothing runs yet. vmm: product.choose_vmm. on_host: the host is the node (bed.host_node),
        for the demo; else node_options are bed.node.Node's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.vmm = choose_vmm(vmm)
        self.agent_flags = list(agent_flags)
        self.api = ControlPlane(folder / "control-plane")
        self.controller = Controller(self.api, folder)
        self._outlives_us = outlives_us
        parts = {
            **node_parts(self.vmm, folder),
            "bed": ON_NODE,
            **(extra_parts or {}),
        }
        self.node: Node | HostNode
        if on_host:
            self.node = HostNode(folder / "node", parts=parts, name=NODE_NAME)
            self.layout = self.node.layout
        else:
            forwards = (HEALTH_PORT, METRICS_PORT)
            self.node = Node(
                folder / "node", parts=parts, name=NODE_NAME, forwards=forwards, **node_options
            )
            self.layout = QEMU

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> "Cluster":
        try:
            self.start_control_plane()
            self.start_node()
            self.start_agent()
            self.wait_node_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def start_control_plane(self) -> None:
        self.api.start(die_with_parent=not self._outlives_us)
        self.api.install_dormouse()
        self.controller.start(die_with_parent=not self._outlives_us)

    def start_node(self) -> None:
        if self._outlives_us and isinstance(self.node, Node):
            leave_running(self.node)
        else:
            self.node.start()
        self.prepare_node()

    def prepare_node(self) -> None:
        """What an administrator puts on a node: images, and who the agent is."""
        at = self.layout
        config = self.api.agent_kubeconfig(
            NODE_NAME,
            self.folder / "agent.kubeconfig",
            server=f"https://{at.api_host}:{self.api.port}",
        )
        self.node.write(at.kubeconfig, config.read_text(), mode=0o600)
        self.node.run(
            f"mkdir -p {at.images}; cp -n --sparse=always {at.parts}/images/*.img {at.images}/",
            seconds=180,
        )

    def stop(self) -> None:
        self.node.stop()
        self.controller.stop()
        self.api.stop()

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def power_cut(self) -> None:
        """The node loses its power, and comes back with its agent."""
        self.node.power_cut()
        self.prepare_node()
        self.start_agent()

    # --- the agent --------------------------------------------------------------------------------

    def agent_command(self) -> list[str]:
        at = self.layout
        listen = "127.0.0.1" if at.on_loopback else ""
        return [
            f"{at.parts}/bin/dormouse-agent",
            f"--kubeconfig={at.kubeconfig}", f"--node-name={NODE_NAME}", f"--node-ip={at.node_ip}",
            f"--vmm={at.parts}/{self.vmm.place}", f"--launcher={at.parts}/bin/dormouse-launch",
            f"--kernel={at.parts}/guest/vmlinuz", f"--initramfs={at.parts}/guest/initramfs",
            f"--state-dir={at.state}", f"--run-dir={at.run}", f"--images-dir={at.images}",
            f"--cgroup-slice={at.slice}", f"--host-namespaces={at.host_namespaces}",
            f"--health-address={listen}:{HEALTH_PORT}", f"--metrics-address={listen}:{METRICS_PORT}",
            "--log-level=debug", "--log-format=text", *self.agent_flags,
        ]  # fmt: skip

    def start_agent(self, failpoints: str = "", env: Mapping[str, str] | None = None) -> None:
        """Returns when it has read the API server's objects. `failpoints`: what is armed from its
        first instruction on; arm() changes it later.
        """
        self.launch_agent(failpoints, env)
        self.wait_agent()

    def launch_agent(self, failpoints: str = "", env: Mapping[str, str] | None = None) -> None:
        """The same, without waiting for anything."""
        environment = {
            **AGENT_ENVIRONMENT,
            "DORMOUSE_FAILPOINTS_FILE": FAILPOINTS,
            "DORMOUSE_FAILPOINTS_TRACE": TRACE,
            **(env or {}),
        }
        if isinstance(self.node, HostNode):
            self.node.start_agent(self.agent_command(), AGENT_ENVIRONMENT)
            return
        words = [f"{name}={value}" for name, value in environment.items()]
        command = shlex.join([AGENT_POD, "start", "env", *words, *self.agent_command()])
        self.node.run(
            f"printf %s {shlex.quote(failpoints)} >{FAILPOINTS}; : >{TRACE};"
            f" setsid {command} </dev/null >>{AGENT_LOG} 2>&1 &"
        )

    def wait_agent(self, seconds: float = 60) -> None:
        eventually(self.agent_synced, "the agent is ready", seconds, self.agent_log)

    def agent_synced(self) -> bool:
        return self.http(HEALTH_PORT, "/readyz") is not None

    def kill_agent(self) -> None:
        """SIGKILL to its whole cgroup; returns when none of it is left."""
        if isinstance(self.node, HostNode):
            self.node.kill_agent()
        else:
            self.node.run([AGENT_POD, "kill"])

    def restart_agent(self, failpoints: str = "") -> None:
        self.kill_agent()
        self.start_agent(failpoints)

    def agent_pids(self) -> list[int]:
        if isinstance(self.node, HostNode):
            return self.node.agent_pids()
        return [int(pid) for pid in self.node.output([AGENT_POD, "pids"]).split()]

    def agent_log(self, lines: int = 60) -> str:
        return self.node.output(["tail", "-n", str(lines), self.layout.log], check=False)

    def arm(self, failpoints: str) -> None:
        """In the running agent, which reads the file again when it changes."""
        self.node.run(
            f"printf %s {shlex.quote(failpoints)} >{FAILPOINTS}.new && mv {FAILPOINTS}.new {FAILPOINTS}"
        )

    def failpoints_hit(self) -> list[str]:
        """Every hit since the agent's start: "name namespace/sandbox"."""
        return self.node.read(TRACE).splitlines()

    def agent_threads(self) -> str:
        """What each of them waits for, and its functions, or where each was when the agent crashed: an agent that does
        either says nothing itself.
        """
        cores = [each.name for each in self.owned() if each.kind == "core"]
        if cores:
            self.node.copy_out(cores[-1], self.folder)
            core = self.folder / Path(cores[-1]).name
            command = ["gdb", "--batch", "-ex", "thread apply all backtrace 20", program("dormouse-agent"), core]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told = self.node.output([AGENT_THREADS, *map(str, self.agent_pids())])
        offsets = sorted({word for line in told.splitlines() if line.startswith("  at") for word in line.split()[1:]})
        command = ["addr2line", "--functions", "--demangle", "--exe", program("dormouse-agent"), *offsets]
        named = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[::2]
        for offset, function in zip(offsets, named):
            told = re.sub(rf" {offset}\b", f"\n    {function[:110]}", told)
        return told

    @contextmanager
    def in_the_middle_of(self, step: str, name: str) -> Iterator[None]:
        """What the body asks for has come to that step of the sandbox's, and stays there for three seconds more."""
        point = f"agent.step.before.{step}"
        hits = self.failpoints_hit().count(f"{point} default/{name}")
        self.arm(f"{point}@default/{name}=1*delay(3000)")
        yield
        eventually(
            lambda: self.failpoints_hit().count(f"{point} default/{name}") > hits, f"it is at {step}", 90, self.agent_log
        )

    def http(self, node_port: int, path: str) -> str | None:
        """A GET of one of the agent's two servers; None unless it answers 200."""
        try:
            url = f"http://127.0.0.1:{self.node.port(node_port)}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read().decode() if answer.status == 200 else None
        except (OSError, urllib.error.URLError):
            return None

    def metrics(self) -> str:
        return self.http(METRICS_PORT, "/metrics") or ""

    def metric(self, name: str) -> float:
        """Of the agent, one without labels; 0 where it does not tell."""
        found = re.search(rf"^{name} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_node_ready(self, seconds: float = 120) -> dict:
        """Until the node offers itself with every image; its SandboxNode."""
        wanted = {"debian-12", "busybox"}

        def ready() -> dict | None:
            answer = self.api.admin.get(object_path("sandboxnodes", NODE_NAME))
            assert answer.ok, answer.message
            node = answer.body
            status = node.get("status", {})
            offered = {image.get("name") for image in status.get("images", [])}
            return node if condition(node, "Ready") == "True" and wanted <= offered else None

        return eventually(
            ready, f"SandboxNode {NODE_NAME} is Ready, with its images", seconds, self.agent_log
        )

    # --- a user's and an operator's hands ---------------------------------------------------------

    def kubectl(self, *arguments: str, **how) -> subprocess.CompletedProcess:
        return self.api.kubectl(*arguments, **how)

    def apply(self, *manifests: dict | Path) -> None:
        """Files as a user does; objects by plain requests, which cost the machine less."""
        for each in manifests:
            if isinstance(each, Path):
                self.kubectl("apply", "-f", str(each))
                continue
            path = object_path(PLURALS[each["kind"]], each["metadata"]["name"])
            answer = self.api.admin.apply(path, each, "test-bed", fieldValidation="Strict")
            self.api.expect(answer, f"apply {path}")

    def get(self, name: str, plural: str = SANDBOXES) -> dict | None:
        answer = self.api.admin.get(object_path(plural, name))
        return answer.body if answer.ok else None

    def list(self, plural: str = SANDBOXES) -> list[dict]:
        return self.api.expect(self.api.admin.get(object_path(plural)), f"list {plural}").body["items"]

    def wish(self, mode: str, *names: str) -> None:
        """operatingMode: Running, Suspended or Stopped."""
        for name in names:
            patch = {"spec": {"operatingMode": mode}}
            self.api.expect(self.api.admin.merge(object_path(SANDBOXES, name), patch), f"{name}: {mode}")

    def bring(self, name: str, mode: str) -> dict:
        """Wishes a mode, and returns the object when that is its phase."""
        self.wish(mode, name)
        return self.wait_phase(name, mode)

    def delete(self, *names: str, plural: str = SANDBOXES) -> None:
        """Asks for it; wait_gone() waits."""
        for name in names:
            self.api.admin.delete(object_path(plural, name))

    def wait_for(self, name: str, holds, what: str, seconds: float = READY_SECONDS) -> dict:
        """Until `holds(object)`; returns the object."""

        def look() -> dict | None:
            found = self.get(name)
            assert found is not None, f"there is no sandbox {name}"
            assert holds(found), json.dumps(found.get("status", {}), indent=1)
            return found

        return eventually(look, f"{name}: {what}", seconds, lambda: self.agent_log() + self.console(name))

    def console(self, name: str) -> str:
        """What the guest said last, for a failure's report."""
        said = self.ctl("logs", "--console", f"default/{name}", check=False).stdout
        return f"\nconsole of {name}:\n{said[-3000:]}"

    def wait_ready(self, *names: str, seconds: float = READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        for name in names:
            left = max(deadline - time.monotonic(), 1)
            self.wait_for(name, lambda sbx: condition(sbx, "Ready") == "True", "Ready", left)

    def wait_phase(self, name: str, phase: str, seconds: float = READY_SECONDS) -> dict:
        return self.wait_for(
            name, lambda sbx: sbx.get("status", {}).get("phase") == phase, phase, seconds
        )

    def wait_reason(
        self, name: str, kind: str, reason: str, seconds: float = READY_SECONDS
    ) -> dict:
        """Until condition `kind` carries `reason`."""
        return self.wait_for(
            name,
            lambda sbx: condition_of(sbx, kind).get("reason") == reason,
            f"{kind}: {reason}",
            seconds,
        )

    def wait_template(self, name: str, phase: str = "Ready", seconds: float = READY_SECONDS) -> dict:
        def look() -> dict:
            found = self.get(name, TEMPLATES)
            assert found is not None, f"there is no template {name}"
            assert found.get("status", {}).get("phase") == phase, json.dumps(found.get("status", {}), indent=1)
            return found

        return eventually(look, f"template {name}: {phase}", seconds, self.agent_log)

    def wait_gone(self, *names: str, plural: str = SANDBOXES, seconds: float = GONE_SECONDS) -> None:
        def gone() -> bool:
            left = {each["metadata"]["name"] for each in self.list(plural)} & set(names)
            assert not left, f"still there: {sorted(left)}"
            return True

        eventually(gone, "deleted", seconds, self.agent_log)

    def events(self, name: str) -> list[dict]:
        """Of one sandbox, oldest first."""
        found = self.api.expect(
            self.api.admin.get("/apis/events.k8s.io/v1/namespaces/default/events"), "list events"
        )
        mine = [
            event for event in found.body["items"] if event.get("regarding", {}).get("name") == name
        ]
        return sorted(mine, key=lambda event: event.get("eventTime") or "")

    def ctl(self, *arguments: str, **how) -> subprocess.CompletedProcess:
        return self.node.run(
            ["dormouse-agent", "ctl", "--socket", self.layout.socket, *arguments], **how
        )

    def exec(
        self,
        name: str,
        command: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        check: bool = True,
        seconds: float = 60,
    ) -> subprocess.CompletedProcess:
        flags = ["-i"] if stdin is not None else []
        return self.ctl(
            "exec",
            *flags,
            f"default/{name}",
            "--",
            *command,
            stdin=stdin,
            check=check,
            seconds=seconds,
        )

    def vmm_pid(self, name: str) -> int:
        """0 when none runs."""
        return self.vmm_pids().get(leak_rules.short_id(self.get(name)["metadata"]["uid"]), 0)

    def vmm_pids(self) -> dict[str, int]:
        """Of all sandboxes whose VMM runs, by the hash of the UID (leaks.short_id)."""
        # The VMM comes first in its cgroup, which has its directory's name.
        command = (
            f"cd {self.layout.run}/vm && for vm in *; do"
            f" read -r pid </sys/fs/cgroup/{self.layout.slice}/$vm/cgroup.procs && echo $vm $pid; done"
        )
        lines = self.node.output(command, check=False).splitlines()
        return {short: int(pid) for short, pid in map(str.split, lines)}

    def flip_a_byte_of_memory(self, uid: str) -> None:
        """Of its first generation, whose digests are waited for, as a disk would do it: the file's time stays. What is
        known to be verified goes, as at the node's next boot.
        """
        generation = f"{self.layout.state}/sandboxes/{uid}/gen-1"
        there = f"test -s {generation}/memory.digests && echo there"
        eventually(lambda: self.node.run(there, check=False).stdout, "its digests", 60, self.agent_log)
        self.node.run(
            f"cd {generation} && touch -r memory /tmp/before && printf bitten |"
            f" dd of=memory bs=1 seek={FLIPPED_AT} conv=notrunc,fsync 2>/dev/null && touch -r /tmp/before memory &&"
            f" sync memory && rm -r {self.layout.run}/verified/{uid}"
        )

    # --- what is left -----------------------------------------------------------------------------

    def owned(self) -> list[leak_rules.Owned]:
        """All that the node holds in Dormouse's names."""
        return leak_rules.parse(self.node.run([LIST_OWNED]).stdout)

    def leaks(self) -> list[leak_rules.Owned]:
        """What of it belongs to no sandbox of the API server."""
        owned = (
            self.owned()
        )  # first: what is made meanwhile belongs to a sandbox that is listed after
        objects = self.list() + self.list(TEMPLATES)
        return leak_rules.leaks(owned, [each["metadata"]["uid"] for each in objects])

    def expect_no_leaks(self, seconds: float = 30) -> None:
        def none() -> bool:
            found = self.leaks()
            assert not found, "\n".join(map(str, found))
            return True

        eventually(none, "nothing on the node belongs to no sandbox", seconds, self.agent_log)


def condition_of(thing: dict, kind: str) -> dict:
    conditions = thing.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def condition(thing: dict, kind: str) -> str:
    """ "True", "False", "Unknown", or "" when it is not there."""
    return condition_of(thing, kind).get("status", "")
