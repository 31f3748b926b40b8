"""Where the time of a start goes, read off the agent's debug log: each step's end and how long it took."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

LINE = re.compile(r'^(\S+Z) D step step="([^"]+)" sandbox="([^"]+)" us="(\d+)"', re.MULTILINE)
# Calls that the VMM carries out while the agent waits.
OF_THE_VMM = ("vmm.create", "vmm.boot")
# The same of the guest, which has booted by then: a guest that is driven by hand is not asked for them.
OF_THE_GUEST = ("guest.configure", "guest.start")


@dataclass(frozen=True)
class Step:
    name: str
    began: float  # seconds since 1970, by the node's clock
    ended: float


@dataclass(frozen=True)
class Start:
    """Of one sandbox, in milliseconds. `agent`: its own work, outside calls of the VMM, the guest's boot and the guest's
    answers (`configured`).
    """

    agent: float
    vmm: float
    guest: float
    configured: float
    detail: dict[str, float]


def steps_of(log: str, sandbox: str) -> list[Step]:
    steps = []
    for ended, name, owner, micros in LINE.findall(log):
        if owner != sandbox:
            continue
        end = datetime.strptime(ended, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        steps.append(Step(name, end.timestamp() - int(micros) / 1e6, end.timestamp()))
    return steps


def start_of(log: str, sandbox: str) -> Start:
    """Steps that overlap count once: the work of a stage is as long as its longest lane, and what is done while the VMM
    is at work costs nothing."""
    steps = steps_of(log, sandbox)
    others = [step for step in steps if step.name in OF_THE_VMM + OF_THE_GUEST]
    by_name = {step.name: step for step in steps}
    guest = by_name["guest.configure"].began - by_name["vmm.boot"].ended
    return Start(
        agent=(covered(steps) - covered(others)) * 1e3,
        vmm=sum(step.ended - step.began for step in steps if step.name in OF_THE_VMM) * 1e3,
        guest=guest * 1e3,
        configured=sum(step.ended - step.began for step in steps if step.name in OF_THE_GUEST) * 1e3,
        detail={step.name: (step.ended - step.began) * 1e3 for step in steps},
    )


def covered(steps: list[Step]) -> float:
    """The length of the union of the steps' intervals."""
    total, until = 0.0, float("-inf")
    for step in sorted(steps, key=lambda each: each.began):
        total += max(0.0, step.ended - max(step.began, until))
        until = max(until, step.ended)
    return total
