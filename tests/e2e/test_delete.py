"""kubectl delete in every phase: it returns, and only when nothing is left."""

from __future__ import annotations

from bed.eventually import eventually
from bed.manifests import sandbox

SLOW = "delay(4000)"
# One sandbox stands still at each of these for a while, and is deleted there.
DURING = (
    "record.save",
    "disk.prepare",
    "net.prepare",
    "vmm.launch",
    "vmm.create",
    "vmm.boot",
    "guest.configure",
)


def test_delete_during_every_step_of_starting(cluster, sandboxes):
    names = {step: f"at-{step.replace('.', '-')}" for step in DURING}
    cluster.arm(
        ";".join(f"agent.step.before.{step}@default/{name}={SLOW}" for step, name in names.items())
    )
    sandboxes(*(sandbox(name, bootSnapshot="Never") for name in names.values()))
    waiting = {f"agent.step.before.{step} default/{name}": name for step, name in names.items()}

    def delete_what_is_there() -> bool:
        for line in set(cluster.failpoints_hit()) & waiting.keys():
            cluster.kubectl("delete", "sbx", waiting.pop(line), "--wait=false")
        return not waiting

    eventually(
        delete_what_is_there,
        "each has come to its step",
        180,
        lambda: f"{waiting}\n{cluster.agent_log()}",
    )
    cluster.wait_gone(*names.values())
    cluster.expect_no_leaks()


def test_delete_in_every_phase(cluster, sandboxes):
    job = {"command": ["/bin/sh", "-c"], "restartPolicy": "Never"}
    sandboxes(
        sandbox("ph-pending", "no-such-image"),
        sandbox("ph-running"),
        sandbox("ph-finished", args=["exit 0"], **job),
        sandbox("ph-failed", args=["exit 1"], **job),
        sandbox("ph-backoff", args=["exit 1"], **{**job, "restartPolicy": "Always"}),
    )
    cluster.wait_ready("ph-running")
    cluster.wait_phase("ph-finished", "Finished")
    cluster.wait_phase("ph-failed", "Failed")
    cluster.wait_reason("ph-pending", "Scheduled", "ImageNotFound")
    cluster.wait_for(
        "ph-backoff", lambda sbx: sbx["status"].get("restartCount", 0) >= 2, "backs off"
    )
    names = ("ph-pending", "ph-running", "ph-finished", "ph-failed", "ph-backoff")
    cluster.kubectl("delete", "sbx", *names, "--timeout=90s")
    cluster.expect_no_leaks()


def test_delete_waits_for_an_agent_that_is_away(cluster, sandboxes):
    """Placed, and the agent has never heard of it; running, and the agent comes back later."""
    sandboxes(sandbox("away-running"))
    cluster.wait_ready("away-running")
    cluster.kill_agent()
    sandboxes(sandbox("away-scheduled"))
    cluster.wait_phase("away-scheduled", "Scheduled", 60)
    cluster.delete("away-running", "away-scheduled")
    stuck = cluster.kubectl("wait", "--for=delete", "sbx/away-running", "--timeout=3s", check=False)
    assert stuck.returncode != 0, "its VMM still runs"
    assert cluster.vmm_pid("away-running")
    cluster.start_agent()
    cluster.wait_gone("away-running", "away-scheduled")
    cluster.expect_no_leaks()
