"""The agent killed, or the node's power cut, at many steps at once: each sandbox of a batch is parked
at one failpoint, and then all of the agent's cgroup gets SIGKILL, or the machine ends.

Back again, it must converge: every sandbox is what was asked for (or gone, when it was being deleted),
nothing is left that belongs to no sandbox. Bystanders do not notice an agent's death; after a power
cut they have booted again from their disk.
"""

from __future__ import annotations

from typing import Sequence

from bed.cluster import Cluster, condition, condition_of
from bed.eventually import eventually
from bed.manifests import TEMPLATES, clone, sandbox, template


def around(*steps: str) -> list[str]:
    return [f"agent.step.{when}.{step}" for step in steps for when in ("before", "after")]


def done(*steps: str) -> list[str]:
    """The steps inside a part: before, and done."""
    return [point for step in steps for point in (step, f"{step}.done")]


CREATION = [
    *around("record.save", "disk.store"),
    *around("disk.prepare"),
    *done("disk.base-loop", "disk.origin", "disk.store-file", "disk.store-loop", "disk.snapshot"),
    *around("net.prepare"),
    *done("net.netns", "net.tap", "net.veth", "net.rules"),
    *around("vmm.prepare", "vmm.launch"),
    "agent.step.launched.vmm.launch",
    *around("record.vmm", "vmm.create", "vmm.boot", "guest.configure", "guest.start"),
]
DELETION = [
    *around("record.save", "vmm.kill", "disk.release"),
    *around("net.remove"),
    *done("net.remove-veth", "net.remove-netns"),
    *around("vmm.remove", "files.remove"),
]
# While the store is copied the root disk stands still.
IN_THE_COPY = "capture.disk.suspended"
SUSPENDING = [IN_THE_COPY] + around(
    "record.save", "capture.prepare", "guest.freeze", "vmm.pause", "capture.state", "capture.memory", "capture.disk",
    "capture.sync", "record.suspended", "vmm.kill", "disk.release", "net.remove", "vmm.remove", "files.prune",
)  # fmt: skip
WAKING = around(
    "record.save", "disk.restore", "disk.prepare", "net.prepare", "vmm.prepare", "vmm.launch", "record.vmm",
    "vmm.restore", "guest.thaw", "record.awake", "files.prune",
)  # fmt: skip
# The guest is asked to power off, and its VMM ends by itself.
STOPPING = around("guest.stop", "record.save", "disk.release", "net.remove", "vmm.remove")
# A template's capture, and a clone's start.
CAPTURING = [IN_THE_COPY] + around(
    "record.save", "capture.prepare", "guest.freeze", "vmm.pause", "capture.state", "capture.memory", "capture.disk",
    "capture.sync", "template.commit", "vmm.resume", "guest.thaw",
)  # fmt: skip
COPYING = around("record.save", "capture.copy", "template.commit")
CLONING = around(
    "record.save", "disk.restore", "disk.prepare", "net.prepare", "vmm.prepare", "vmm.launch", "record.vmm",
    "vmm.restore", "guest.thaw", "guest.configure", "record.awake", "files.prune",
)  # fmt: skip
# A sandbox whose memory cannot be used boots from its disk.
GIVING_UP = around("disk.take", "record.disk-only")
BYSTANDER = "bystander"


class KillMatrix:
    """One bystander runs through all of it."""

    def __init__(self, cluster: Cluster, sandboxes, power: bool = False) -> None:
        """power: it is the node's that ends, not the agent."""
        self._power = power
        self._memory = "96Mi" if cluster.vmm.real else "64Mi"
        self._cluster = cluster
        self._sandboxes = sandboxes
        sandboxes(self._manifest(BYSTANDER))
        cluster.wait_ready(BYSTANDER)
        self._bystander = self._identity(BYSTANDER)

    def make(self, names: Sequence[str]) -> None:
        self._sandboxes(*(self._manifest(name) for name in names))
        self._cluster.wait_ready(*names)

    def kill_while_creating(self, points: Sequence[str], batch: str = "c") -> list[str]:
        """The names of the sandboxes, which are Ready again."""
        cluster = self._cluster
        targets = {point: f"{batch}{number}" for number, point in enumerate(points)}
        self._arm(targets)
        self._sandboxes(*(self._manifest(name) for name in targets.values()))
        self._kill_when_all_are_parked(targets)
        cluster.wait_ready(*targets.values(), seconds=240)
        self._settled()
        return list(targets.values())

    def kill_while_deleting(self, points: Sequence[str], names: Sequence[str]) -> None:
        """Uses up one of `names`, which run, for each point."""
        cluster = self._cluster
        targets = dict(zip(points, names, strict=False))
        assert len(targets) == len(points), "a running sandbox for each point"
        self._arm(targets)
        cluster.delete(*targets.values())
        self._kill_when_all_are_parked(targets)
        cluster.wait_gone(*targets.values())
        self._settled()

    def kill_while_changing(self, points: Sequence[str], names: Sequence[str], mode: str) -> None:
        """`names` run, or sleep: they end in the other mode."""
        targets = dict(zip(points, names, strict=False))
        assert len(targets) == len(points), "a sandbox for each point"
        self._arm(targets)
        self._cluster.wish(mode, *targets.values())
        self._kill_when_all_are_parked(targets)
        for name in targets.values():
            found = self._cluster.wait_phase(name, mode)
            if mode == "Running" and not self._power:  # after a cut it may have been awake already
                assert found["status"]["vm"]["startMode"] == "Resume", f"{name} has lost its memory: {found['status']}"
        self._settled()

    def kill_while_giving_up_memory(self, points: Sequence[str], names: Sequence[str]) -> None:
        """`names` run, under an agent that computes digests at once. They fall asleep, a byte of each one's memory flips,
        and each boots from its disk, as it is told to."""
        cluster = self._cluster
        targets = dict(zip(points, names, strict=True))
        cluster.wish("Suspended", *names)
        for name in names:
            cluster.flip_a_byte_of_memory(cluster.wait_phase(name, "Suspended")["metadata"]["uid"])
        cluster.wish("Running", *names)
        for name in names:
            told = cluster.wait_reason(name, "Ready", "ResumeFailed")
            assert "memory chunk" in condition_of(told, "Ready")["message"]
        self._arm(targets)
        for name in names:
            cluster.kubectl("annotate", "sbx", name, "dormouse.dev/boot-from-disk=true")
        self._kill_when_all_are_parked(targets)
        cluster.wait_ready(*names)
        for name in names:
            found = cluster.get(name)
            assert found["status"]["vm"]["startMode"] == "Boot"
            folder = f"{cluster.layout.state}/sandboxes/{found['metadata']['uid']}"
            left = [entry for entry in cluster.node.output(["ls", folder]).split() if entry.startswith("gen-")]
            assert not left, f"{name} runs, and the memory that it gave up is still there"
        self._settled()

    def kill_while_capturing(self, points: Sequence[str], names: Sequence[str], batch: str) -> list[str]:
        """`names` run, or sleep, and go on with it; returns the templates, which are Ready."""
        cluster = self._cluster
        targets = dict(zip(points, names, strict=False))
        phases = {name: cluster.get(name)["status"]["phase"] for name in targets.values()}
        self._arm(targets)
        made = {f"{batch}{number}": name for number, name in enumerate(targets.values())}
        self._sandboxes(*(template(own, source) for own, source in made.items()))
        self._kill_when_all_are_parked(targets)
        for own, source in made.items():
            cluster.wait_template(own)
            cluster.wait_phase(source, phases[source])
        self._settled()
        return list(made)

    def kill_while_cloning(self, points: Sequence[str], source: str, batch: str) -> list[str]:
        cluster = self._cluster
        targets = {point: f"{batch}{number}" for number, point in enumerate(points)}
        self._arm(targets)
        self._sandboxes(*(clone(name, source) for name in targets.values()))
        self._kill_when_all_are_parked(targets)
        cluster.wait_ready(*targets.values(), seconds=240)
        for name in targets.values():
            assert self._power or cluster.get(name)["status"]["vm"]["startMode"] == "Template", f"{name} is no clone"
        self._settled()
        return list(targets.values())

    def kill_while_templates_are_made_and_used(self) -> None:
        """Captured from what runs and from what sleeps, and cloned."""
        cluster = self._cluster
        names = [f"source-{number}" for number in range(len(CAPTURING))]
        self.make(names)
        templates = self.kill_while_capturing(CAPTURING, names, "t")
        for name in names[: len(COPYING)]:
            cluster.wish("Suspended", name)
        for name in names[: len(COPYING)]:
            cluster.wait_phase(name, "Suspended")
        self.kill_while_capturing(COPYING, names, "copy-")
        cluster.delete(*names)
        cluster.wait_gone(*names)
        clones = self.kill_while_cloning(CLONING, templates[0], "clone-")
        cluster.delete(templates[0], plural=TEMPLATES)
        cluster.delete(*clones)
        cluster.wait_gone(*clones)
        cluster.wait_gone(templates[0], plural=TEMPLATES)

    def _arm(self, targets: dict[str, str]) -> None:
        self._cluster.node.run(["truncate", "-s0", "/run/dormouse-failpoints-trace"])
        self._cluster.arm(
            ";".join(f"{point}@default/{name}=park" for point, name in targets.items())
        )

    def _kill_when_all_are_parked(self, targets: dict[str, str]) -> None:
        wanted = {f"{point} default/{name}" for point, name in targets.items()}

        def parked() -> bool:
            missing = wanted - set(self._cluster.failpoints_hit())
            assert not missing, f"not yet at: {sorted(missing)}"
            return True

        eventually(parked, "each sandbox stands at its failpoint", 180, self._cluster.agent_log)
        if self._power:
            self._cluster.power_cut()
        else:
            self._cluster.kill_agent()
            self._cluster.start_agent()

    def _settled(self) -> None:
        if self._power:
            self._cluster.wait_for(BYSTANDER, self._has_booted_again, "booted again from its disk", 120)
            self._bystander = self._identity(BYSTANDER)
        assert self._identity(BYSTANDER) == self._bystander, "a running VM noticed"
        self._cluster.expect_no_leaks()
        assert (
            self._cluster.ctl("sweep", check=False).returncode == 0
        ), "the agent's own sweep finds something"

    def _has_booted_again(self, found: dict) -> bool:
        """Since the last time."""
        restarted = found["status"].get("restartCount", 0) > self._bystander[3]
        return restarted and condition(found, "Ready") == "True"

    def _identity(self, name: str) -> tuple:
        found = self._cluster.get(name)
        status = found["status"]
        return (
            found["metadata"]["uid"],
            self._cluster.vmm_pid(name),
            status.get("startedAt"),
            status.get("restartCount", 0),
        )

    def _manifest(self, name: str) -> dict:
        # A disk larger than its image, so that there is an origin to make; a workload, so that
        # there is one to start; and each boots, rather than starts from what another left.
        return sandbox(
            name,
            resources={"cpu": 1, "memory": self._memory},
            disk={"size": "64Mi"},
            command=["/bin/sleep", "86400"],
            bootSnapshot="Never",
        )
