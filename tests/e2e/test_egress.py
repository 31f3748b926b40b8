"""What a guest reaches, while policies change and others take our rules away."""

from __future__ import annotations

import pytest

from bed.cluster import NODE_NAME, condition_of
from bed.eventually import eventually
from bed.traffic import (
    Listener, flush_and_time, heard_by_node, listen_on_node, set_egress, talker, wait_sent,
)  # fmt: skip

pytestmark = pytest.mark.real_vmm


@pytest.fixture
def listener():
    with Listener() as made:
        yield made


def heard(cluster, sandboxes, listener, egress="Open", **spec) -> str:
    sandboxes(talker("talker", cluster, listener, egress, **spec))
    cluster.wait_ready("talker")
    listener.wait_heard()
    return "talker"


def test_a_tightened_policy_cuts_an_open_stream_and_a_wider_one_lets_it_go_on(cluster, sandboxes, listener):
    name = heard(cluster, sandboxes, listener)
    set_egress(cluster, name, "Restricted")
    listener.wait_silent()
    set_egress(cluster, name, "Open")
    listener.wait_heard()
    set_egress(cluster, name, "None")
    listener.wait_silent()


def test_a_firewalls_restart_lets_nothing_in_and_is_repaired_and_told(cluster, sandboxes, listener):
    heard(cluster, sandboxes, listener)
    listen_on_node(cluster)
    listener.wait_heard()
    flush_and_time(cluster)
    listener.wait_heard()
    assert heard_by_node(cluster) == 0
    told = condition_of(
        eventually(
            lambda: (node := cluster.wait_node_ready())
            and condition_of(node, "NetworkReady")["reason"] == "RulesRepaired"
            and node,
            "the node's object tells of it",
        ),
        "NetworkReady",
    )
    assert told["status"] == "True" and "table inet dormouse" in told["message"]
    eventually(
        lambda: "RulesRepaired" in [event["reason"] for event in cluster.events(NODE_NAME)], "an event tells of it"
    )


def test_without_an_agent_a_firewalls_restart_lets_nothing_in(cluster, sandboxes, listener):
    heard(cluster, sandboxes, listener)
    listen_on_node(cluster)
    cluster.kill_agent()
    cluster.node.run(["nft", "flush", "ruleset"])
    wait_sent(cluster)
    assert heard_by_node(cluster) == 0
    cluster.start_agent()
    cluster.node.run(["nft", "list", "table", "inet", "dormouse"])
    listener.wait_heard()
    assert heard_by_node(cluster) == 0


def test_a_policy_that_becomes_the_default_while_the_agent_is_away_is_in_force_when_it_is_back(
    cluster, sandboxes, listener
):
    name = heard(cluster, sandboxes, listener)
    cluster.kill_agent()
    set_egress(cluster, name, "Restricted")
    listener.wait_heard()
    cluster.start_agent()
    listener.wait_silent()


def test_a_policy_that_changed_in_sleep_is_in_force_when_it_wakes(cluster, sandboxes, listener):
    name = heard(cluster, sandboxes, listener)
    cluster.bring(name, "Suspended")
    set_egress(cluster, name, "Restricted")
    cluster.bring(name, "Running")
    cluster.wait_ready(name)
    listener.wait_silent()


def test_a_policy_that_changed_in_back_off_is_in_force_when_it_is_restarted(cluster, sandboxes, listener):
    name = heard(cluster, sandboxes, listener, restartPolicy="Always")
    for count in (1, 2):  # the first restart waits for nothing
        cluster.node.run(["kill", "-9", str(cluster.vmm_pid(name))])
        cluster.wait_for(name, lambda sbx: sbx["status"].get("restartCount", 0) == count, f"restart {count}")
        if count == 1:
            cluster.wait_ready(name)
            listener.wait_heard()
    assert condition_of(cluster.get(name), "Ready")["reason"] == "VMMCrashed"
    set_egress(cluster, name, "Restricted")
    cluster.wait_ready(name)
    connect = f": </dev/tcp/{cluster.layout.api_host}/{listener.port}"
    assert cluster.exec(name, ["timeout", "3", "bash", "-c", connect], check=False).returncode != 0
    set_egress(cluster, name, "Open")
    listener.wait_heard()
