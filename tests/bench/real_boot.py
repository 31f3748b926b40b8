"""Starts on the real VMM in the QEMU node, and the same boot driven by hand beside them."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

from bed.cluster import Cluster
from bed.manifests import object_path, sandbox, SANDBOXES
from bench.figures import Figure, median
from bench.starts import Watch
from bench.steps import start_of

ROUNDS = 5
MEMORY = 128 << 20
CMDLINE = (
    "root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock net.ifnames=0 quiet"
    " ip=169.254.0.21::169.254.0.22:255.255.255.252:sandbox:eth0:off"
)


def measure(cluster: Cluster) -> list[Figure]:
    """Alternates the two sides, so that a slow minute of the machine slows both."""
    watch = Watch(cluster.api.admin)
    rounds, by_hand = [], []
    try:
        one(cluster, watch, "warm-up")
        for number in range(ROUNDS):
            rounds.append(one(cluster, watch, f"bench-{number}"))
            by_hand.append(boot_by_hand(cluster))
    finally:
        watch.stop()
    figures = [
        Figure.of(f"start: {part}", median([each[part] for each in rounds]), "ms", target)
        for part, target in (
            ("apply to Ready", ""), ("API", ""), ("placement", ""), ("agent", "<= 60"), ("VMM", ""), ("guest", ""),
        )
    ]  # fmt: skip
    hand = [sum(each.values()) for each in by_hand]
    figures.append(Figure.of("start: the same boot by hand", median(hand), "ms"))
    figures.append(
        Figure.of(
            "start: VMM and guest against by hand",
            median([each["VMM"] + each["guest"] for each in rounds]) / median(hand), "ratio",
        )
    )  # fmt: skip
    figures.append(guest_agent_memory(cluster))
    for name in sorted(rounds[0]["detail"]):
        value = median([each["detail"].get(name, 0.0) for each in rounds])
        figures.append(Figure.of(f"start, step {name}", value, "ms"))
    return figures


def one(cluster: Cluster, watch: Watch, name: str) -> dict:
    began = time.monotonic()
    cluster.api.expect(
        cluster.api.admin.create(object_path(SANDBOXES), sandbox(name)), "create a sandbox"
    )
    created = time.monotonic()
    watch.wait_ready([name], 180)
    start = start_of(cluster.node.read(cluster.layout.log), f"default/{name}")
    cluster.delete(name)
    cluster.wait_gone(name)
    whole = (watch.ready[name] - began) * 1e3
    return {
        "apply to Ready": whole,
        "API": (created - began) * 1e3,
        "placement": (watch.placed[name] - created) * 1e3,
        "agent": start.agent,
        "VMM": start.vmm,
        "guest": start.guest,
        "detail": start.detail,
    }


def boot_by_hand(cluster: Cluster) -> dict[str, float]:
    parts = cluster.layout.parts
    command = [
        f"{parts}/bench/by_hand", f"{parts}/{cluster.vmm.place}", f"{parts}/guest/vmlinuz",
        f"{parts}/guest/initramfs", f"{parts}/images/busybox.img", str(MEMORY), CMDLINE,
    ]  # fmt: skip
    return json.loads(cluster.node.output(shlex.join(command), seconds=180))


def guest_agent_memory(cluster: Cluster) -> Figure:
    cluster.apply(sandbox("memory"))
    cluster.wait_ready("memory")
    said = cluster.exec("memory", ["cat", "/proc/1/status"]).stdout
    cluster.delete("memory")
    cluster.wait_gone("memory")
    rss = next(line for line in said.splitlines() if line.startswith("VmRSS"))
    return Figure.of("resident memory: guest agent", int(rss.split()[1]) / 1024, "MiB")


def run(folder: Path) -> list[Figure]:
    on_node = Path(__file__).parent / "on_node"
    with Cluster(folder, extra_parts={"bench": on_node}, life_seconds=1800) as cluster:
        if not cluster.vmm.real:
            print("bench: no real VMM here: its figures are left out")
            return []
        return measure(cluster)
