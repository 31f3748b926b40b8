"""How soon a policy holds, and what a firewall's restart lets through, with a real guest in the QEMU node."""

from __future__ import annotations

import time

from bed.cluster import Cluster
from bed.traffic import Listener, flush_and_time, heard_by_node, listen_on_node, set_egress, talker, wait_sent
from bench.figures import Figure

NAME = "talker"
ROUNDS = 5


def egress(cluster: Cluster) -> list[Figure]:
    with Listener() as listener:
        cluster.apply(talker(NAME, cluster, listener, "Open"))
        cluster.wait_ready(NAME)
        listener.wait_heard()
        figures = [*restarts(cluster, listener), *cuts(cluster, listener)]
        cluster.delete(NAME)
        cluster.wait_gone(NAME)
    return figures


def restarts(cluster: Cluster, listener: Listener) -> list[Figure]:
    listen_on_node(cluster)
    times = []
    for _ in range(ROUNDS):
        times.append(flush_and_time(cluster))
        listener.wait_heard()
    cluster.kill_agent()
    cluster.node.run(["nft", "flush", "ruleset"])
    wait_sent(cluster, 100)
    cluster.start_agent()
    return [
        Figure.of("egress: nft flush ruleset to our rules being back, the longest", max(times), "s", "<= 2"),
        Figure.of(
            "egress: packets of the guest to the node meanwhile, and without an agent", heard_by_node(cluster), "", "<= 0"
        ),
    ]  # fmt: skip


def cuts(cluster: Cluster, listener: Listener) -> list[Figure]:
    times = []
    for _ in range(ROUNDS):
        asked = time.monotonic()
        set_egress(cluster, NAME, "Restricted")
        times.append(listener.wait_silent() - asked)
        set_egress(cluster, NAME, "Open")
        listener.wait_heard(120)
    return [Figure.of("egress: tightened to an open stream being cut, the longest", max(times), "s", "<= 2")]


PARTS = (egress,)
