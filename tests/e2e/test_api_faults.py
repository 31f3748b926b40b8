"""The API server breaks in every way it can: nothing is deleted, work resumes, nobody spins."""

from __future__ import annotations

import time

from bed.eventually import eventually
from bed.manifests import sandbox

TICKS = 100  # of /proc/PID/stat a second
AWAY_SECONDS = 60


def agent_cpu_seconds(cluster) -> float:
    total = 0
    for pid in cluster.agent_pids():
        fields = cluster.node.output(["cat", f"/proc/{pid}/stat"]).rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def controller_cpu_seconds(cluster) -> float:
    pid = cluster.controller.pid()
    if pid is None:  # it ended with its lease
        return 0.0
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def identity(cluster, name: str) -> tuple:
    return (
        cluster.get(name)["metadata"]["uid"],
        cluster.vmm_pid(name),
        cluster.get(name)["status"].get("restartCount", 0),
    )


def new_work_is_done(cluster, sandboxes, name: str) -> None:
    if not cluster.controller.running():  # it ended with its lease; its Deployment would start it again
        cluster.controller.start()
    sandboxes(sandbox(name))
    cluster.wait_ready(name, seconds=240)


def test_an_api_server_that_is_gone_for_a_minute(cluster, sandboxes):
    sandboxes(sandbox("steady"))
    cluster.wait_ready("steady")
    before = identity(cluster, "steady")
    pid = before[1]
    cpu, controller_cpu = agent_cpu_seconds(cluster), controller_cpu_seconds(cluster)
    cluster.api.stop_api_server()
    back_at = time.monotonic() + AWAY_SECONDS

    def still_there() -> bool:
        assert cluster.node.run(["kill", "-0", str(pid)], check=False).returncode == 0
        return time.monotonic() > back_at

    eventually(still_there, "a minute has passed", AWAY_SECONDS + 30)
    assert agent_cpu_seconds(cluster) - cpu < AWAY_SECONDS / 4, "the agent spins"
    assert (
        controller_cpu_seconds(cluster) - controller_cpu < AWAY_SECONDS / 10
    ), "the controller spins"
    assert cluster.exec("steady", ["true"], check=False).returncode == 0
    cluster.api.start_api_server()
    new_work_is_done(cluster, sandboxes, "after-outage")
    assert identity(cluster, "steady") == before


def test_an_agent_that_starts_while_there_is_no_api_server(cluster, sandboxes):
    sandboxes(sandbox("orphaned-for-a-while"))
    cluster.wait_ready("orphaned-for-a-while")
    before = identity(cluster, "orphaned-for-a-while")
    cluster.api.stop_api_server()
    cluster.kill_agent()
    cluster.launch_agent()
    eventually(lambda: cluster.agent_pids(), "the agent runs")
    cluster.api.start_api_server()
    cluster.wait_agent()
    new_work_is_done(cluster, sandboxes, "after-both")
    assert identity(cluster, "orphaned-for-a-while") == before


def test_a_watch_that_is_too_old(cluster, sandboxes):
    sandboxes(sandbox("before-410"))
    cluster.wait_ready("before-410")
    before = identity(cluster, "before-410")
    cluster.api.forget_history()
    new_work_is_done(cluster, sandboxes, "after-410")
    assert identity(cluster, "before-410") == before


def test_a_half_open_connection(cluster, sandboxes):
    sandboxes(sandbox("before-freeze"))
    cluster.wait_ready("before-freeze")
    before = identity(cluster, "before-freeze")
    cluster.api.freeze_api_server()
    try:
        until = time.monotonic() + 45

        def passed() -> bool:
            assert cluster.node.run(["kill", "-0", str(before[1])], check=False).returncode == 0
            return time.monotonic() > until

        eventually(passed, "longer than a dead connection is borne", 90)
    finally:
        cluster.api.thaw_api_server()
    new_work_is_done(cluster, sandboxes, "after-freeze")
    assert identity(cluster, "before-freeze") == before


def test_a_controller_that_was_killed_is_followed_by_the_next(cluster, sandboxes):
    cluster.controller.kill()
    sandboxes(sandbox("unplaced"))
    cluster.controller.start()
    cluster.wait_ready("unplaced", seconds=240)
