"""Ten at once."""

from __future__ import annotations

from bed.manifests import sandbox

COUNT = 10


def test_ten_sandboxes_start_and_end_together(cluster, sandboxes):
    names = [f"many-{number}" for number in range(COUNT)]
    sandboxes(*(sandbox(name) for name in names))
    cluster.wait_ready(*names, seconds=300)
    statuses = {name: cluster.get(name)["status"] for name in names}
    assert len({status["network"]["hostIP"] for status in statuses.values()}) == COUNT
    pids = {cluster.vmm_pid(name) for name in names}
    assert len(pids) == COUNT and 0 not in pids
    for name in names[:: COUNT - 1]:
        assert cluster.exec(name, ["echo", name]).stdout == f"{name}\n"
    assert not any(each.get("restartCount") for each in statuses.values())
    cluster.kubectl("delete", "sbx", *names, "--timeout=120s")
    assert cluster.leaks() == []
