"""The same without Dormouse: on_node/by_hand, run on the node."""

from __future__ import annotations

import json
import shlex

from bed.cluster import Cluster

CMDLINE = (
    "root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock tsc=nowatchdog net.ifnames=0 quiet"
    " ip=169.254.0.21::169.254.0.22:255.255.255.252:sandbox:eth0:off"
)


def by_hand(cluster: Cluster, memory: int, *more: str, vcpus: int = 1) -> dict[str, float]:
    parts = cluster.layout.parts
    command = [
        f"{parts}/bench/by_hand", f"{parts}/{cluster.vmm.place}", f"{parts}/guest/vmlinuz",
        f"{parts}/guest/initramfs", f"{parts}/images/busybox.img", str(memory), str(vcpus), CMDLINE, *more,
    ]  # fmt: skip
    return json.loads(cluster.node.output(shlex.join(command), seconds=400))
