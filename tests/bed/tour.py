"""What nobody else has, shown in some ten seconds: a machine that sleeps with its memory, wakes where it was, is frozen
as a template, and goes on three times over. For `make demo`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable

from bed.cluster import Cluster
from bed.manifests import clone, template

CLONES = 3
TEMPLATE = "hello-warm"
MIB = 1 << 20
# In the guest's memory, so that it is there only if that is.
KEPT = "/dev/shm/boot_id"


@dataclass(frozen=True)
class Scene:
    did: str
    took: float  # seconds
    saw: str

    def __str__(self) -> str:
        return f"{self.took:8.1f} s  {self.did:<28}{self.saw}"


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def tour(cluster: Cluster, name: str) -> list[Scene]:
    """`name` is Running, and left so; the template and its clones stay, to be looked at. AssertionError when the machine
    that woke is not the one that slept.
    """
    return [sleep(cluster, name), wake(cluster, name), freeze(cluster, name), start_clones(cluster)]


def sleep(cluster: Cluster, name: str) -> Scene:
    cluster.exec(name, ["sh", "-c", f"cat /proc/sys/kernel/random/boot_id > {KEPT}"])
    took = timed(lambda: cluster.bring(name, "Suspended"))
    status = cluster.get(name)["status"]
    snapshot, memory = status["snapshot"], status["resources"]["memory"]
    return Scene("put to sleep", took, f"{snapshot['writtenBytes'] / MIB:.0f} MiB of {memory} written, stood still for {snapshot['pauseWindow']}")


def wake(cluster: Cluster, name: str) -> Scene:
    took = timed(lambda: cluster.bring(name, "Running"))
    said = cluster.exec(name, ["sh", "-c", f"cat {KEPT} /proc/sys/kernel/random/boot_id"]).stdout.split()
    assert said[0] == said[1], f"{name} has booted instead of waking: {said}"
    return Scene("woken", took, "the same kernel, the same programs")


def freeze(cluster: Cluster, name: str) -> Scene:
    cluster.apply(template(TEMPLATE, name))
    took = timed(lambda: cluster.wait_template(TEMPLATE))
    status = cluster.get(TEMPLATE, plural="snapshottemplates")["status"]
    return Scene("frozen as a template", took, f"{status['allocatedBytes'] / MIB:.0f} MiB; {name} stood still for {status['pauseWindow']}")


def start_clones(cluster: Cluster) -> Scene:
    names = [f"{TEMPLATE}-{number}" for number in range(1, CLONES + 1)]

    def start() -> None:
        cluster.apply(*(clone(each, TEMPLATE) for each in names))
        cluster.wait_ready(*names)

    took = timed(start)
    hosts = [cluster.exec(each, ["hostname"]).stdout.strip() for each in names]
    return Scene(f"{CLONES} clones started", took, ", ".join(hosts))
