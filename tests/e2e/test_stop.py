"""Machines that are stopped, start again, and sleep when nothing happens in them."""

from __future__ import annotations

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.manifests import sandbox

# Says on its disk that it was asked to end; a shell waits for its child to be able to hear that.
WINDS_UP = "trap 'sleep 1; echo wound up >> /notes; sync; exit 0' TERM; echo started >> /notes; while :; do sleep 1; done"


def notes(cluster, name: str) -> list[str]:
    return cluster.exec(name, ["cat", "/notes"]).stdout.split("\n")[:-1]


def test_a_stopped_machine_winds_up_keeps_its_disk_and_starts_again(cluster, sandboxes):
    sandboxes(sandbox("serves", command=["/bin/sh", "-c", WINDS_UP], restartPolicy="Never"))
    cluster.wait_ready("serves")
    eventually(lambda: notes(cluster, "serves") == ["started"], "it has begun")
    address = cluster.get("serves")["status"]["network"]["hostIP"]

    cluster.wish("Stopped", "serves")
    stopped = cluster.wait_phase("serves", "Stopped")
    assert condition_of(stopped, "Ready")["reason"] == "Stopped" and cluster.vmm_pid("serves") == 0
    assert not [one for one in stopped["status"]["conditions"] if one["type"] == "Finished"]

    cluster.wish("Running", "serves")
    cluster.wait_ready("serves")
    eventually(lambda: notes(cluster, "serves") == ["started", "wound up", "started"], "it has begun again")
    assert cluster.get("serves")["status"]["network"]["hostIP"] == address


def test_a_machine_that_has_ended_starts_again_by_its_restarted_at(cluster, sandboxes):
    sandboxes(sandbox("job", command=["/bin/sh", "-c", "echo ran >> /notes; sync; sleep 2"], restartPolicy="Never"))
    finished = cluster.wait_phase("job", "Finished")
    assert condition_of(finished, "Finished")["reason"] == condition_of(finished, "Ready")["reason"]
    cluster.kubectl("patch", "sbx", "job", "--type=merge", "-p", '{"spec": {"restartedAt": "2026-01-02T03:04:05Z"}}')
    cluster.wait_for("job", lambda sbx: sbx["status"]["phase"] == "Running", "it runs again")
    assert notes(cluster, "job") == ["ran", "ran"]
    cluster.wait_phase("job", "Finished")


def test_a_deletion_lets_the_workload_wind_up(cluster, sandboxes):
    sandboxes(sandbox("leaves", command=["/bin/sh", "-c", "trap 'echo bye >/dev/console; sleep 1; exit 0' TERM; "
                                                          "while :; do sleep 1; done"]))  # fmt: skip
    cluster.wait_ready("leaves")
    cluster.kubectl("delete", "sbx", "leaves", "--wait=false")
    cluster.wait_for("leaves", lambda sbx: sbx["status"]["phase"] == "Terminating", "it winds up")
    cluster.wait_gone("leaves")


def test_an_idle_machine_sleeps_and_one_that_computes_does_not(cluster, sandboxes):
    idle = {"idle": {"timeout": "20s"}}
    sandboxes(sandbox("lazy", **idle), sandbox("busy", command=["/bin/sh", "-c", "while :; do :; done"], **idle))
    cluster.wait_ready("lazy", "busy")
    deadline = cluster.get("lazy")["status"]["idleDeadline"]
    asleep = cluster.wait_phase("lazy", "Suspended")
    assert condition_of(asleep, "Ready")["reason"] == "IdleTimeout"
    assert asleep["status"]["suspendedAt"] >= deadline
    assert any("unless something does" in one.get("note", "") for one in cluster.events("lazy"))
    assert cluster.get("busy")["status"]["phase"] == "Running"
    cluster.wish("Running", "lazy")
    cluster.wait_ready("lazy")
    assert cluster.exec("lazy", ["true"]).returncode == 0
