"""The test bed's own promises: what the fault hooks do, and that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import sandbox

from bed.control_plane import ControlPlane
from bed.daemons import Daemon

TESTS = Path(__file__).resolve().parents[1]


def test_an_old_version_is_gone_once_history_is_forgotten(control_plane, admin, created):
    made = created("sandboxes", sandbox("seen"))

    def watch_from_then():
        version = made["metadata"]["resourceVersion"]
        return admin.client.get(
            admin.path("sandboxes"), watch="true", resourceVersion=version, timeoutSeconds="2"
        )

    control_plane.forget_history()
    # Ready as it is, it says 429 for a kind whose cache is not filled yet.
    control_plane.wait_until(lambda: watch_from_then().status != 429, "the watch cache")
    answer = watch_from_then()
    assert answer.status == 410 or (answer.body["type"], answer.body["object"]["code"]) == (
        "ERROR",
        410,
    )
    assert admin.get("sandboxes", "seen").body["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_stopped_api_server_refuses_and_comes_back_on_its_port(control_plane):
    port = control_plane.port
    control_plane.stop_api_server()
    try:
        with pytest.raises(ConnectionRefusedError):
            control_plane.admin.get("/readyz")
    finally:
        control_plane.start_api_server()
    assert control_plane.port == port and control_plane.admin.get("/readyz").status == 200


def test_a_frozen_api_server_answers_only_when_thawed(control_plane):
    answers = []
    control_plane.freeze_api_server()
    try:
        asking = threading.Thread(
            target=lambda: answers.append(control_plane.admin.get("/version"))
        )
        asking.start()
        asking.join(timeout=0.3)
        assert answers == []
    finally:
        control_plane.thaw_api_server()
    asking.join(timeout=30)
    assert answers[0].ok


def test_kubeconfigs_hold_all_that_a_machine_elsewhere_needs(control_plane, tmp_path):
    server = control_plane.url_from_qemu
    text = control_plane.agent_kubeconfig("node-k", tmp_path / "agent", server=server).read_text(
        encoding="ascii"
    )
    assert (
        f"server: https://10.0.2.2:{control_plane.port}" in text
        and "certificate-authority-data: " in text
    )
    assert (tmp_path / "agent").stat().st_mode & 0o777 == 0o600
    path = control_plane.controller_kubeconfig(tmp_path / "controller")
    answer = control_plane.kubectl(
        "--kubeconfig", str(path), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"
    )
    assert answer.stdout == "system:serviceaccount:dormouse-system:dormouse-controller"


def test_a_daemon_is_found_again_and_ended_by_another_process(tmp_path):
    first = Daemon("sleeper", tmp_path)
    first.start(["/bin/sleep", "60"], die_with_parent=True)
    second = Daemon("sleeper", tmp_path)
    assert second.pid() == first.pid() is not None
    second.stop()
    assert not first.running() and list(tmp_path.glob("*.pid")) == []


def test_a_pid_that_another_process_got_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        (tmp_path / "sleeper.pid").write_text(f"{stranger.pid} 1\n", encoding="ascii")
        daemon = Daemon("sleeper", tmp_path)
        assert not daemon.running()
        daemon.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_up_and_down_in_an_empty_network_namespace(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root makes a network namespace")
    steps = """
import subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command = [sys.executable, "-m", "bed.control_plane", "--state-dir", sys.argv[1]]
try:
    subprocess.run([*command, "up"], check=True)
    subprocess.run([*command, "status"], check=True)
finally:
    subprocess.run([*command, "down"], check=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", steps, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"export KUBECONFIG={tmp_path}/admin.kubeconfig" in done.stdout
    assert not ControlPlane(tmp_path).running()
