"""kubectl-dormouse against a real API server; the test plays controller and agent."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest
from conftest import condition, sandbox

from bed import kubeconfig, tools
from bed.eventually import eventually
from bed.product import ProductError, program

MIB = 1 << 20
SANDBOXES = "sandboxes"
TEMPLATES = "snapshottemplates"
SECONDS = 60  # for whatever should be quick


@pytest.fixture(scope="module")
def plugin():
    try:
        return program("kubectl-dormouse")
    except ProductError as error:
        pytest.skip(str(error))


class Cli:
    """The program, as the administrator; started through kubectl where the test is about that."""

    def __init__(self, plugin, control_plane) -> None:
        self._plugin = plugin
        self._kubectl = str(tools.find("kubectl"))
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(control_plane.admin_kubeconfig),
            "HOME": str(control_plane.state_dir),
            "PATH": f"{plugin.parent}:{os.environ['PATH']}",
        }
        self.started: list[subprocess.Popen] = []

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return self._run([str(self._plugin), *arguments], environment)

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess:
        return self._run([self._kubectl, "dormouse", *arguments], {})

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**self.environment, **environment},
        )

    def start(self, *arguments: str, **streams) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(self._plugin), *arguments],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
            text=True,
            env={**self.environment, "TERM": "xterm"},
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def cli(plugin, control_plane):
    made = Cli(plugin, control_plane)
    yield made
    made.close()


class Agent:
    """Writes the status of one object, as the agent of its node does."""

    def __init__(self, admin, name: str, plural: str = SANDBOXES) -> None:
        self._admin, self._name, self._plural = admin, name, plural

    def wish(self) -> tuple[str, int]:
        seen = self._admin.get(self._plural, self._name).body
        return seen["spec"].get("operatingMode", "Running"), seen["metadata"]["generation"]

    def await_wish(self, mode: str) -> int:
        eventually(lambda: self.wish()[0] == mode, f"{self._name} is to be {mode}", SECONDS)
        return self.wish()[1]

    def say(self, generation: int, phase: str, *conditions: dict, **status) -> None:
        believed = [{**one, "observedGeneration": generation} for one in conditions]
        body = {"observedGeneration": generation, "phase": phase, "conditions": believed, **status}
        answer = self._admin.apply_status(self._plural, self._name, body)
        assert answer.ok, answer.message


@pytest.fixture
def running(admin, created):
    """s1, which runs on its node."""
    created(SANDBOXES, sandbox("s1"))
    agent = Agent(admin, "s1")
    agent.say(1, "Running", condition("Ready", reason="Ready"), resources={"cpu": 1, "memory": "512Mi"})
    return agent


def asleep(agent: Agent, generation: int) -> None:
    agent.say(
        generation,
        "Suspended",
        condition("Ready", "False", "SuspendedByUser", "asleep"),
        condition("Suspended", "True", "SuspendedByUser"),
        snapshot={"memoryBytes": 96 * MIB, "writtenBytes": 2 * MIB, "generation": 1},
    )


def lines(text: str) -> list[str]:
    """Without their times."""
    return [re.sub(r"  \d+(\.\d)?s", "", line) for line in text.splitlines()]


def next_line(process: subprocess.Popen) -> str:
    return lines(process.stderr.readline())[0]


def test_a_suspend_sets_the_mode_and_owns_nothing_else(cli, admin, running):
    done = cli.run("suspend", "s1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "sandbox.dormouse.dev/s1 told to suspend\n"
    seen = admin.get(SANDBOXES, "s1").body
    assert seen["spec"]["operatingMode"] == "Suspended"
    ours = [one for one in seen["metadata"]["managedFields"] if one["manager"] == "kubectl-dormouse"]
    assert [one["fieldsV1"] for one in ours] == [{"f:spec": {"f:operatingMode": {}}}]


def test_waiting_shows_each_change_and_ends_when_it_sleeps(cli, running):
    waiting = cli.start("suspend", "s1", "--wait")
    assert next_line(waiting) == "s1  Running  512 MiB RAM", "of the spec before: it decides nothing"
    generation = running.await_wish("Suspended")
    running.say(
        generation,
        "Suspending",
        condition("Ready", "False", "SuspendedByUser", "being suspended"),
        resources={"cpu": 1, "memory": "512Mi"},
    )
    assert next_line(waiting) == "s1  Suspending  512 MiB RAM"
    asleep(running, generation)
    out, err = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 0
    assert out == "sandbox.dormouse.dev/s1 suspended\n"
    assert lines(err) == ["s1  Suspended  2 MiB written, 96 MiB kept"]


def test_a_wake_waits_for_room_and_says_so(cli, running):
    assert cli.run("suspend", "s1").returncode == 0
    asleep(running, running.wish()[1])
    waiting = cli.start("resume", "s1", "--wait=true")
    assert next_line(waiting) == "s1  Suspended  96 MiB kept"
    generation = running.await_wish("Running")
    running.say(generation, "Suspended", condition("Ready", "False", "NoCapacity", "node-a is full"))
    assert next_line(waiting) == "s1  Suspended  NoCapacity: node-a is full"
    running.say(generation, "Resuming", condition("Ready", "False", "Starting", "waiting for the guest"))
    assert next_line(waiting) == "s1  Resuming"
    running.say(generation, "Running", condition("Ready", reason="Ready"))
    out, err = waiting.communicate(timeout=SECONDS)
    assert (waiting.returncode, lines(err)) == (0, ["s1  Running"])
    assert out == "sandbox.dormouse.dev/s1 running\n"


@pytest.mark.parametrize(
    ("verb", "mode", "failure"),
    [
        ("suspend", "Suspended", ("Suspended", "SnapshotFailed", "write memory: ENOSPC")),
        ("resume", "Running", ("Ready", "ResumeFailed", "state.json: its digest differs")),
        ("resume", "Running", ("Ready", "SnapshotIncompatible", "the node has another CPU")),
    ],
)
def test_a_failure_ends_the_wait_with_the_agents_words(cli, running, verb, mode, failure):
    if verb == "resume":
        assert cli.run("suspend", "s1").returncode == 0
        asleep(running, running.wish()[1])
    waiting = cli.start(verb, "s1", "--wait")
    generation = running.await_wish(mode)
    kind, reason, message = failure
    running.say(generation, "Running", condition(kind, "False", reason, message))
    out, err = waiting.communicate(timeout=SECONDS)
    assert (waiting.returncode, out) == (1, "")
    assert err.splitlines()[-1] == f"error: sandbox.dormouse.dev/s1: {reason}: {message}"


def test_an_older_failure_does_not_end_the_wait(cli, running):
    running.say(1, "Running", condition("Suspended", "False", "SnapshotFailed", "of yesterday"))
    done = cli.run("suspend", "s1", "--wait", "--timeout=1s")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: sandbox.dormouse.dev/s1 is not suspended after 1.0s, but Running"
    )


def test_a_sandbox_that_is_deleted_is_not_waited_for(cli, admin, running):
    waiting = cli.start("suspend", "s1", "--wait")
    running.await_wish("Suspended")
    assert admin.delete(SANDBOXES, "s1").ok
    _, err = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 1
    assert 'sandboxes.dormouse.dev "s1" not found' in err.splitlines()[-1]


def test_several_are_told_at_once_and_those_that_are_not_there_are_named(cli, admin, created):
    for name in ("a", "b"):
        created(SANDBOXES, sandbox(name))
    waiting = cli.start("suspend", "a", "nobody", "b", "--wait")
    for name in ("a", "b"):
        agent = Agent(admin, name)
        asleep(agent, agent.await_wish("Suspended"))
    out, err = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 1
    assert out.split() == ["sandbox.dormouse.dev/a", "suspended", "sandbox.dormouse.dev/b", "suspended"]
    assert (
        'error: there is no sandbox "nobody" in namespace "default": patch sandboxes default/nobody: 404: '
        'sandboxes.dormouse.dev "nobody" not found'
    ) in err.splitlines()


def test_a_snapshot_is_made_waited_for_and_cloned(cli, admin, running):
    waiting = cli.start("snapshot", "s1", "--to", "t1", "--wait")
    try:
        eventually(lambda: admin.get(TEMPLATES, "t1").ok, "the template is made", SECONDS)
        assert admin.get(TEMPLATES, "t1").body["spec"]["source"] == {"sandbox": {"name": "s1"}}
        agent = Agent(admin, "t1", TEMPLATES)
        agent.say(1, "Capturing", memoryBytes=512 * MIB)
        agent.say(1, "Ready", condition("Ready"), readyToUse=True, allocatedBytes=97 * MIB)
        out, err = waiting.communicate(timeout=SECONDS)
        assert waiting.returncode == 0, err
        assert out.splitlines() == [
            "snapshottemplate.dormouse.dev/t1 created",
            "snapshottemplate.dormouse.dev/t1 ready",
        ]
        assert lines(err)[-1] == "t1  Ready  97 MiB kept"

        waiting = cli.start("clone", "t1", "c1", "--wait")
        eventually(lambda: admin.get(SANDBOXES, "c1").ok, "the clone is made", SECONDS)
        spec = admin.get(SANDBOXES, "c1").body["spec"]
        assert spec["source"] == {"snapshotTemplate": {"name": "t1"}}
        clone = Agent(admin, "c1")
        clone.say(1, "Running", condition("Ready", reason="Ready"))
        out, err = waiting.communicate(timeout=SECONDS)
        assert (waiting.returncode, out.splitlines()[-1]) == (0, "sandbox.dormouse.dev/c1 running")

        again = cli.run("clone", "t1", "c1")
        assert again.returncode == 1
        assert again.stderr.startswith('error: there is a sandbox "c1" in namespace "default" already: ')
    finally:
        admin.delete(TEMPLATES, "t1")
        admin.delete(SANDBOXES, "c1")


def test_a_capture_that_fails_ends_the_wait(cli, admin, running):
    waiting = cli.start("snapshot", "s1", "--to=t2", "--wait")
    try:
        eventually(lambda: admin.get(TEMPLATES, "t2").ok, "the template is made", SECONDS)
        failed = condition("Failed", "True", "SnapshotFailed", "the deadline of 5m has passed")
        Agent(admin, "t2", TEMPLATES).say(1, "Failed", failed)
        _, err = waiting.communicate(timeout=SECONDS)
        assert waiting.returncode == 1
        assert err.splitlines()[-1] == (
            "error: snapshottemplate.dormouse.dev/t2: SnapshotFailed: the deadline of 5m has passed"
        )
    finally:
        admin.delete(TEMPLATES, "t2")


def test_what_a_verb_starts_from_must_be_there(cli, admin):
    for arguments, missing in (
        (("snapshot", "nobody", "--to", "t9"), 'there is no sandbox "nobody" in namespace "default"'),
        (("clone", "nothing", "c9"), 'there is no template "nothing" in namespace "default"'),
        (("suspend", "s1", "-n", "elsewhere"), 'there is no sandbox "s1" in namespace "elsewhere"'),
    ):
        done = cli.run(*arguments)
        assert done.returncode == 1 and done.stderr.startswith(f"error: {missing}: "), done.stderr
    assert not admin.get(TEMPLATES, "t9").ok and not admin.get(SANDBOXES, "c9").ok


def test_kubectl_finds_it_and_passes_its_exit_code_on(cli, running):
    done = cli.kubectl("suspend", "s1", "--namespace", "default")
    assert (done.returncode, done.stdout) == (0, "sandbox.dormouse.dev/s1 told to suspend\n")
    assert running.wish()[0] == "Suspended"
    assert cli.kubectl("suspend", "s1", "--wait", "--timeout=200ms").returncode == 2
    assert cli.kubectl("suspend", "nobody").returncode == 1
    mistake = cli.kubectl("suspend")
    assert mistake.returncode == 1 and "NAME is required" in mistake.stderr
    assert "snapshot" in cli.kubectl("--help").stdout


def test_an_exec_plugin_signs_in_and_contexts_are_chosen(cli, control_plane, running, tmp_path):
    """And the plugin's own TLS is not disturbed by ours."""
    helper = tmp_path / "sign-in"
    admin = control_plane.admin
    status = {
        "clientCertificateData": admin.cert_file.read_text(),
        "clientKeyData": admin.key_file.read_text(),
    }
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    helper.write_text(
        "#!/usr/bin/env python3\nimport os\n"
        "assert not {'SSL_CERT_FILE', 'SSL_CERT_DIR'} & os.environ.keys(), 'roots are hidden'\n"
        f"print({json.dumps(answer)!r})\n"
    )
    helper.chmod(0o755)
    config = kubeconfig.write(tmp_path / "config", server=control_plane.url, ca_file=control_plane.ca_file, user="no")
    sign_in = f"exec: {{apiVersion: client.authentication.k8s.io/v1, command: {helper}, interactiveMode: Never}}"
    config.write_text(
        config.read_text()
        .replace("    token: no", f"    {sign_in}")
        .replace("current-context: dormouse", "current-context: other")
    )
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        cli.environment.pop(name, None)
    arguments = ("--kubeconfig", str(config), "resume", "s1")
    assert "context 'other' does not exist" in cli.run(*arguments).stderr
    done = cli.run(*arguments, "--context=dormouse")
    assert done.returncode == 0, done.stderr


def test_the_rights_that_the_docs_name_suffice(cli, control_plane, running, tmp_path):
    """docs/kubectl.md: patch, and to wait for it get and watch."""
    name, namespace = "dormouse-user", "/namespaces/default"
    rbac = f"/apis/rbac.authorization.k8s.io/v1{namespace}"
    rule = {"apiGroups": ["dormouse.dev"], "resources": [SANDBOXES], "verbs": ["patch", "get"]}
    role = {"metadata": {"name": name}, "rules": [rule]}
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    }
    admin = control_plane.admin
    accounts = f"/api/v1{namespace}/serviceaccounts"
    assert admin.create(accounts, {"metadata": {"name": name}}).ok
    assert admin.create(f"{rbac}/roles", role).ok and admin.create(f"{rbac}/rolebindings", binding).ok
    token = admin.create(f"{accounts}/{name}/token", {"spec": {}}).body["status"]["token"]
    config = kubeconfig.write(
        tmp_path / "config", server=control_plane.url, ca_file=control_plane.ca_file, user=token
    )
    suspend = ("--kubeconfig", str(config), "suspend", "s1")

    eventually(lambda: cli.run(*suspend).returncode == 0, "the role is in force", SECONDS)
    waited = cli.run(*suspend, "--wait")
    assert waited.returncode == 1 and "watch sandboxes default/s1: 403: " in waited.stderr
    rule["verbs"].append("watch")
    assert admin.replace(f"{rbac}/roles/{name}", role).ok

    def waits_for_it() -> bool:
        return cli.run(*suspend, "--wait", "--timeout=500ms").returncode == 2

    eventually(waits_for_it, "the role is in force", SECONDS)
    asleep(running, running.wish()[1])
    assert cli.run(*suspend, "--wait").returncode == 0


def test_a_restart_of_the_api_server_does_not_end_the_wait(cli, control_plane, running):
    waiting = cli.start("suspend", "s1", "--wait")
    generation = running.await_wish("Suspended")
    control_plane.forget_history()
    asleep(running, generation)
    out, err = waiting.communicate(timeout=SECONDS)
    assert (waiting.returncode, out) == (0, "sandbox.dormouse.dev/s1 suspended\n"), err


def test_on_a_terminal_the_line_is_rewritten_in_place(cli, running):
    ours, theirs = pty.openpty()
    try:
        waiting = cli.start("suspend", "s1", "--wait", stderr=theirs)
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + SECONDS
        while not re.search(rb"\x1b\[1A\rs1  Running  512 MiB RAM  0\.[3-9]s\x1b\[K", shown):
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096)
        asleep(running, running.await_wish("Suspended"))
        out, _ = waiting.communicate(timeout=SECONDS)
        assert (waiting.returncode, out) == (0, "sandbox.dormouse.dev/s1 suspended\n")
        assert b"\x1b[1A\rs1  Suspended  2 MiB written, 96 MiB kept" in os.read(ours, 65536)
    finally:
        os.close(ours)


def test_without_a_cluster_it_says_where_it_looked(cli, tmp_path):
    done = cli.run("suspend", "s1", KUBECONFIG=str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, f"error: kubeconfig: there is no file {tmp_path}/none\n")
