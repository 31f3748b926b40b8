"""The files that hold a guest's memory: damaged, told of by name and put right; read by nobody, and copied nowhere."""

from __future__ import annotations

import hashlib
import json
import secrets

import pytest

from bed.cluster import condition_of
from bed.manifests import sandbox, template
from bed.on_node.sandbox_files import canonical

COPY = "cp -a --sparse=always --reflink=auto"
DAMAGE = {  # by sandbox: what is done to which file
    "shorter": ("truncate -s -4096", "memory"),
    "missing": ("rm", "memory"),
    "unstated": ("rm", "state.json"),
}


@pytest.mark.real_vmm
def test_what_cannot_be_woken_says_which_file_and_wakes_when_that_is_put_right(cluster, sandboxes):
    state = cluster.layout.state
    sandboxes(*(sandbox(name) for name in DAMAGE))
    cluster.wait_ready(*DAMAGE)
    generations = {name: f"{state}/sandboxes/{cluster.get(name)['metadata']['uid']}/gen-1" for name in DAMAGE}
    for name in DAMAGE:
        cluster.exec(name, ["sh", "-c", f"echo {name} >/dev/shm/mark"])
        cluster.bring(name, "Suspended")
    agent = cluster.agent_pids()
    for name, (damage, file) in DAMAGE.items():
        cluster.node.run(f"{COPY} {generations[name]} {state}/kept-{name}; {damage} {generations[name]}/{file}")
    try:
        cluster.wish("Running", *DAMAGE)
        for name, (_, file) in DAMAGE.items():
            told = cluster.wait_reason(name, "Ready", "ResumeFailed")
            assert file in condition_of(told, "Ready")["message"]
        assert cluster.agent_pids() == agent, "the agent has come through it"
    finally:
        for name, (_, file) in DAMAGE.items():
            cluster.node.run(f"{COPY} {state}/kept-{name}/{file} {generations[name]}/; rm -r {state}/kept-{name}")
    cluster.wait_ready(*DAMAGE)
    for name in DAMAGE:
        assert cluster.exec(name, ["cat", "/dev/shm/mark"]).stdout.strip() == name


@pytest.mark.real_vmm
def test_a_state_that_its_vmm_does_not_understand_is_told_of_and_kept(cluster, sandboxes):
    """As another version of it would write: there is no version in it, and its digest is right."""
    sandboxes(sandbox("foreign"))
    cluster.wait_ready("foreign")
    generation = f"{cluster.layout.state}/sandboxes/{cluster.get('foreign')['metadata']['uid']}/gen-1"
    cluster.exec("foreign", ["sh", "-c", "echo mine >/dev/shm/mark"])
    cluster.bring("foreign", "Suspended")
    agent = cluster.agent_pids()
    written = {name: cluster.node.read(f"{generation}/{name}") for name in ("manifest.json", "state.json")}
    field, state = without_a_field(json.loads(written["state.json"]))
    manifest = json.loads(written["manifest.json"])["manifest"]
    manifest["state"] = {"bytes": len(state), "sha256": hashlib.sha256(state.encode()).hexdigest()}
    checksum = hashlib.sha256(canonical(manifest).encode()).hexdigest()
    cluster.node.write(f"{generation}/state.json", state)
    cluster.node.write(f"{generation}/manifest.json", canonical({"version": 1, "checksum": checksum, "manifest": manifest}))

    cluster.wish("Running", "foreign")
    told = cluster.wait_reason("foreign", "Ready", "ResumeFailed")
    assert field in condition_of(told, "Ready")["message"]
    assert cluster.agent_pids() == agent, "the agent has come through it"
    for name, text in written.items():
        cluster.node.write(f"{generation}/{name}", text)
    cluster.wait_ready("foreign")
    assert cluster.exec("foreign", ["cat", "/dev/shm/mark"]).stdout == "mine\n"


def without_a_field(state: dict) -> tuple[str, str]:
    """Of the first CPU: its name, and the state."""
    cpu = state["snapshots"]["cpu-manager"]["snapshots"]["0"]["snapshot_data"]
    fields = json.loads(cpu["state"])["Kvm"]
    gone = sorted(fields)[0]
    del fields[gone]
    cpu["state"] = json.dumps({"Kvm": fields})
    return gone, json.dumps(state)


@pytest.mark.real_vmm
def test_what_a_guest_remembers_is_in_its_memory_file_and_nowhere_else(cluster, sandboxes):
    layout = cluster.layout
    token = secrets.token_hex(16)
    sandboxes(sandbox("discreet"))
    cluster.wait_ready("discreet")
    uid = cluster.get("discreet")["metadata"]["uid"]
    cluster.exec("discreet", ["sh", "-c", "cat >/dev/shm/token"], stdin=token)
    sandboxes(template("discreet-too", "discreet"))
    cluster.wait_template("discreet-too")
    cluster.arm("agent.step.before.capture.sync@default/discreet=1*error(EIO)")
    cluster.wish("Suspended", "discreet")
    cluster.wait_reason("discreet", "Suspended", "SnapshotFailed")
    cluster.wait_phase("discreet", "Suspended")
    cluster.arm("agent.step.before.guest.thaw@default/discreet=1*error(EIO)")
    cluster.bring("discreet", "Running")
    cluster.bring("discreet", "Suspended")

    found = cluster.node.output(f"grep -rl --exclude-dir=images {token} {layout.state} {layout.run} {layout.log}", seconds=300, check=False)
    files = {path.rpartition("/")[2] for path in found.splitlines()}
    assert files == {"memory"}, found
    told = json.dumps([cluster.get("discreet"), cluster.events("discreet")])
    assert token not in told + cluster.metrics() + cluster.ctl("show", "default/discreet").stdout

    closed = f"{layout.state}/sandboxes/{uid}/gen-* {layout.state}/templates/*"
    assert set(cluster.node.output(f"stat -c '%a %U' {closed}").splitlines()) == {"700 root"}
    assert cluster.vmm_pid("discreet") == 0
