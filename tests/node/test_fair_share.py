"""A node that runs full: who took most of it stands still first. The fake VMM, and the node's usual disk."""

from __future__ import annotations

from bed.cluster import condition_of
from bed.eventually import eventually
from bed.manifests import sandbox
from bed.state_disk import STATE


def test_who_grew_most_stands_still_first_and_everybody_only_at_the_last(cluster, sandboxes):
    others = ("small", "tiny")
    sandboxes(*(sandbox(name) for name in ("hog", *others)))
    cluster.wait_ready("hog", *others)
    run, ballast = cluster.node.run, f"{STATE}/ballast"
    pids = cluster.vmm_pids()
    uid = cluster.get("hog")["metadata"]["uid"]
    run(["fallocate", "-n", "-l", "1GiB", f"{STATE}/sandboxes/{uid}/store.cow"])

    def leave(mib: int) -> None:
        run(f"rm -f {ballast}; fallocate -l $(($(stat -f -c '%a*%S' {STATE}) - ({mib} << 20))) {ballast}")

    def expect_others(ready: str) -> None:
        for name in others:
            cluster.wait_for(name, lambda found: condition_of(found, "Ready")["status"] == ready, f"Ready={ready}")

    def pressure() -> dict:
        return condition_of(cluster.wait_node_ready(), "DiskPressure")

    try:
        leave(300)  # below the pause mark of 512 MiB
        told = condition_of(cluster.wait_reason("hog", "Ready", "NodeDiskFull", 60), "Ready")["message"]
        assert "its disk takes 10" in told and "where an even share is" in told, told
        eventually(lambda: "default/hog" in pressure()["message"], "the node names it", 60, lambda: str(pressure()))
        expect_others("True")
        leave(100)  # below a quarter of it
        expect_others("False")
        leave(450)
        expect_others("True")
        assert condition_of(cluster.get("hog"), "Ready")["reason"] == "NodeDiskFull", "the first goes on last"
    finally:
        run(["rm", "-f", ballast])
    cluster.wait_ready("hog", *others)
    assert cluster.vmm_pids() == pids, "all stood still, and none ended"
