"""The restart policy, after the VMM was killed and after the workload ended."""

from __future__ import annotations

import pytest
from bed.cluster import condition_of
from bed.eventually import eventually
from bed.leaks import short_id
from bed.manifests import sandbox

POLICIES = ("Never", "OnFailure", "Always")


def restarts(thing: dict) -> int:
    return thing.get("status", {}).get("restartCount", 0)


def test_a_killed_vmm_is_told_and_followed_by_its_policy(cluster, sandboxes):
    names = {policy: f"killed-{policy.lower()}" for policy in POLICIES}
    sandboxes(*(sandbox(name, restartPolicy=policy) for policy, name in names.items()))
    cluster.wait_ready(*names.values())
    pids = {name: cluster.vmm_pid(name) for name in names.values()}
    cluster.node.run(["kill", "-9", *map(str, pids.values())])

    ended = cluster.wait_phase(names["Never"], "Failed")
    assert condition_of(ended, "Ready")["reason"] == "VMMCrashed"
    assert condition_of(ended, "Finished")["status"] == "True" and restarts(ended) == 0
    for policy in ("OnFailure", "Always"):
        cluster.wait_for(names[policy], lambda sbx: restarts(sbx) == 1, "restarted once")
        cluster.wait_ready(names[policy])
        assert cluster.vmm_pid(names[policy]) not in (0, pids[names[policy]])
    assert cluster.vmm_pid(names["Never"]) == 0
    for name in names.values():
        eventually(
            lambda name=name: any(
                event["reason"] == "VMMCrashed" for event in cluster.events(name)
            ),
            f"an event tells of {name}",
        )


def test_a_second_crash_waits_longer(cluster, sandboxes):
    sandboxes(sandbox("crasher", restartPolicy="Always"))
    for count in (1, 2):
        cluster.wait_ready("crasher")
        cluster.node.run(["kill", "-9", str(cluster.vmm_pid("crasher"))])
        waiting = cluster.wait_for(
            "crasher", lambda sbx: restarts(sbx) == count, f"restart {count}"
        )
    ready = condition_of(waiting, "Ready")
    assert (
        ready["status"] == "False"
        and ready["reason"] == "VMMCrashed"
        and "restart 2 at" in ready["message"]
    )
    cluster.wait_ready("crasher")


def test_the_workloads_end_counts_by_its_exit_code(cluster, sandboxes):
    def job(name: str, script: str, policy: str) -> dict:
        return sandbox(name, command=["/bin/sh", "-c"], args=[script], restartPolicy=policy)

    sandboxes(
        job("job-good", "exit 0", "OnFailure"), job("job-bad", "exit 3", "Never"), job("job-again", "exit 0", "Always"),
    )  # fmt: skip
    good = cluster.wait_phase("job-good", "Finished")
    assert good["status"]["exitCode"] == 0 and restarts(good) == 0 and good["status"]["finishedAt"]
    assert {condition_of(good, kind)["reason"] for kind in ("Ready", "GuestReady", "Finished")} == {"Completed"}
    started = cluster.events("job-good")
    assert good["status"]["vm"]["startMode"] in ("Boot", "BootSnapshot"), started
    bad = cluster.wait_phase("job-bad", "Failed")
    assert condition_of(bad, "Ready")["reason"] == "WorkloadFailed", cluster.events("job-bad")
    assert bad["status"]["exitCode"] == 3
    cluster.wait_for("job-again", lambda sbx: restarts(sbx) >= 1, "started again")
    for name in ("job-good", "job-bad"):
        assert cluster.vmm_pid(name) == 0, "what has ended holds no VMM"


@pytest.mark.real_vmm
def test_a_guest_that_ends_itself_is_told_from_a_crash(cluster, sandboxes):
    sandboxes(sandbox("off", restartPolicy="OnFailure"), sandbox("again", restartPolicy="OnFailure"))
    cluster.wait_ready("off", "again")
    first = cluster.vmm_pid("again")
    cluster.exec("off", ["poweroff", "-f"], check=False)
    cluster.exec("again", ["reboot", "-f"], check=False)

    finished = cluster.wait_phase("off", "Finished")
    assert condition_of(finished, "Ready")["reason"] == "GuestPoweredOff"
    assert restarts(finished) == 0 and cluster.vmm_pid("off") == 0
    told = cluster.wait_for("again", lambda sbx: restarts(sbx) == 1, "a reboot counts as a restart")
    assert told["status"]["phase"] != "Failed"
    cluster.wait_ready("again")
    assert cluster.vmm_pid("again") not in (0, first)


@pytest.mark.real_vmm
def test_a_guest_that_powered_off_while_the_agent_was_away_is_not_booted_again(cluster, sandboxes):
    sandboxes(sandbox("away"))
    cluster.wait_ready("away")
    script = "(sleep 2; poweroff -f) </dev/null >/dev/null 2>&1 &"
    cluster.exec("away", ["/bin/sh", "-c", script])
    cluster.kill_agent()
    events = f"{cluster.layout.run}/vm/{short_id(cluster.get('away')['metadata']['uid'])}/events"
    eventually(
        lambda: "shutdown" in cluster.node.output(["/bin/sh", "-c", f"cat {events}*"], check=False),
        "the VMM tells of the poweroff",
    )
    cluster.start_agent()
    finished = cluster.wait_phase("away", "Finished")
    assert condition_of(finished, "Ready")["reason"] == "GuestPoweredOff"
