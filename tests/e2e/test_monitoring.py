"""What the chart's alerts and its dashboard ask an agent for, a running agent has."""

from __future__ import annotations

from bed import monitoring
from bed.manifests import sandbox

# Those of the controller, and one that comes with the first look at memory that has slept for a week.
NOT_YET = {"dormouse_sandboxes_waiting", "leader_election_master_status", "dormouse_memory_scrubs_total"}


def test_an_agent_serves_every_metric_that_is_asked_for(cluster, sandboxes):
    sandboxes(sandbox("measured", "busybox"))
    cluster.wait_ready("measured")
    cluster.arm("net.tap@default/measured=1*error(EIO)")
    cluster.bring("measured", "Suspended")
    cluster.bring("measured", "Running")
    assert monitoring.asked_for() - NOT_YET - monitoring.exposed(cluster.metrics()) == set()
