"""What a user does first: create, wait, look, run a command, delete."""

from __future__ import annotations

import pytest

from bed.manifests import sandbox
from bed.session import running_sandboxes


@pytest.fixture(scope="module")
def web(cluster):
    """One sandbox for the tests that only look at it."""
    for made in running_sandboxes(cluster):
        made(
            sandbox(
                "web", "debian-12", disk={"size": "1Gi"}, user="user", workingDir="/usr",
                command=["/bin/sh", "-c"], args=['echo "$GREETING" >&2; id -un; pwd; exec sleep infinity'],
                env=[{"name": "GREETING", "value": "good morning"}],
            )
        )  # fmt: skip
        cluster.wait_ready("web")
        yield "web"


def test_kubectl_wait_works_on_condition_and_phase(cluster, web):
    cluster.kubectl("wait", "--for=condition=Ready", f"sbx/{web}", "--timeout=60s")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Running", f"sbx/{web}", "--timeout=60s")


def test_columns_tell_the_state(cluster, web):
    header, row = (line.split() for line in cluster.kubectl("get", "sbx", web).stdout.splitlines())
    assert header == ["NAME", "READY", "MODE", "PHASE", "NODE", "AGE"]
    assert row[:5] == [web, "True", "Running", "Running", "node-a"]
    wide = cluster.kubectl("get", "sbx", web, "-o", "wide").stdout
    assert "debian-12" in wide and cluster.get(web)["status"]["network"]["hostIP"] in wide


def test_describe_shows_what_happened(cluster, web):
    text = cluster.kubectl("describe", "sbx", web).stdout
    events = text[text.index("Events:") :]
    assert "Scheduled" in events and "Started" in events and "Warning" not in events


def test_status_says_what_runs(cluster, web):
    status = cluster.get(web)["status"]
    assert status["resources"] == {"cpu": 1, "memory": "128Mi", "disk": "1Gi"}
    assert status["vm"]["startMode"] in ("Boot", "BootSnapshot") and status["vm"]["bootToReady"]
    assert status["vm"]["hypervisor"] == "cloud-hypervisor"
    assert status["observedGeneration"] == cluster.get(web)["metadata"]["generation"]
    assert status["startedAt"]


def test_command_has_its_exit_code(cluster, web):
    assert cluster.exec(web, ["sh", "-c", "exit 7"], check=False).returncode == 7
    assert cluster.exec(web, ["sh", "-c", "kill -9 $$"], check=False).returncode == 128 + 9
    missing = cluster.exec(web, ["no-such-program"], check=False)
    assert missing.returncode in (126, 127) and "no-such-program" in missing.stderr


def test_stdin_stdout_and_stderr_stay_apart(cluster, web):
    done = cluster.exec(web, ["sh", "-c", "cat; echo aside >&2"], stdin="a\nb\n")
    assert (done.stdout, done.stderr) == ("a\nb\n", "aside\n")


def test_a_megabyte_passes_both_ways(cluster, web):
    text = "0123456789abcde\n" * (1 << 16)
    assert cluster.exec(web, ["cat"], stdin=text).stdout == text


@pytest.mark.real_vmm
def test_the_guest_is_a_machine_of_its_own(cluster, web):
    lines = cluster.exec(
        web, ["sh", "-c", "uname -s; hostname; cat /proc/1/comm; nproc; stat -f -c '%b %S' /"]
    ).stdout.splitlines()
    assert lines[:4] == ["Linux", web, "init", "1"]
    blocks, size = map(int, lines[4].split())
    assert blocks * size > 900 << 20, "the root file system has grown to disk.size"
    assert cluster.exec(web, ["grep", "eth0", "/proc/net/if_inet6"], check=False).stdout == "", "nothing beyond speaks it"
    mounted = cluster.exec(web, ["grep", "^/dev/vda / ext4 ", "/proc/mounts"]).stdout
    assert "noinit_itable" in mounted, "no thread fills its store with zeros"
    assert (
        "good morning"
        in (said := cluster.ctl("logs", f"default/{web}", check=False)).stdout + said.stderr
    )


@pytest.mark.real_vmm
def test_the_workload_runs_as_its_user(cluster, web):
    lines = cluster.ctl("logs", f"default/{web}").stdout.splitlines()
    assert "user" in lines and "/usr" in lines


def test_the_agents_view_stands_beside_the_apis(cluster, web):
    import json

    listed = json.loads(cluster.ctl("list", "-o", "json").stdout)
    assert [each["name"] for each in listed] == [web]
    shown = json.loads(cluster.ctl("show", f"default/{web}", "-o", "json").stdout)
    assert set(shown) >= {"record", "plan", "kernel", "vmm"}
    assert cluster.ctl("sweep", check=False).returncode == 0


def test_delete_leaves_nothing(cluster, sandboxes, web):
    sandboxes(sandbox("short"))
    cluster.wait_ready("short")
    mine = {thing.sandbox for thing in cluster.owned()}
    cluster.kubectl("delete", "sbx", "short", "--timeout=60s")
    left = {thing.sandbox for thing in cluster.owned()}
    assert cluster.leaks() == [] and len(mine - left) == 1 and cluster.vmm_pid(web)


def test_a_successor_of_the_same_name_is_another_machine(cluster, sandboxes):
    sandboxes(sandbox("twin", "debian-12"))
    cluster.wait_ready("twin")
    cluster.exec("twin", ["sh", "-c", "echo old >/root/mark; sync"])
    cluster.kubectl("delete", "sbx", "twin", "--wait=false")
    cluster.kubectl("delete", "sbx", "twin", "--timeout=60s", "--ignore-not-found")
    sandboxes(sandbox("twin", "debian-12"))
    cluster.wait_ready("twin")
    if cluster.vmm.real:
        assert cluster.exec("twin", ["test", "-e", "/root/mark"], check=False).returncode == 1
