"""Sandboxes on the fake VMM whose memory holds something to be lost, and a neighbour that must not notice what befalls them.
"""

from __future__ import annotations

import json

from bed import guest_memory
from bed.cluster import Cluster, condition, condition_of
from bed.eventually import eventually
from bed.leaks import short_id
from bed.manifests import sandbox
from bed.state_disk import STATE

NEIGHBOUR = "neighbour"


class Sleepers:
    """Sandboxes with numbers in their memory, and a neighbour."""

    def __init__(self, cluster: Cluster, sandboxes, names, neighbour: bool = True) -> None:
        self.cluster = cluster
        self.names = list(names)
        everybody = [*self.names, *([NEIGHBOUR] if neighbour else [])]
        sandboxes(*(self.manifest(name) for name in everybody))
        cluster.wait_ready(*everybody)
        self.uids = {name: cluster.get(name)["metadata"]["uid"] for name in everybody}
        self.memory = {}
        self.remember(*everybody, first=1)
        self.neighbour = self.identity(NEIGHBOUR) if neighbour else ()

    @staticmethod
    def manifest(name: str) -> dict:
        return sandbox(
            name,
            resources={"cpu": 1, "memory": f"{guest_memory.MIB}Mi"},
            disk={"size": "64Mi"},
            command=["/bin/sleep", "86400"],
            bootSnapshot="Never",
        )

    def folder(self, name: str) -> str:
        return f"{STATE}/sandboxes/{self.uids[name]}"

    def pids(self) -> dict[str, int]:
        """Of those that run."""
        running = self.cluster.vmm_pids()
        return {name: running[short_id(uid)] for name, uid in self.uids.items() if short_id(uid) in running}

    def remember(self, *names: str, first: int) -> None:
        numbers = {name: first + at for at, name in enumerate(names)}
        self.memory.update(guest_memory.write(self.cluster, self.pids(), numbers))

    def expect_memory(self, *names: str) -> None:
        found = guest_memory.sums(self.cluster, self.pids(), names)
        assert found == {name: self.memory[name] for name in names}, "memory is not what it was"

    def identity(self, name: str) -> tuple:
        status = self.cluster.get(name)["status"]
        return self.pids()[name], status.get("startedAt"), status.get("restartCount", 0)

    def expect_neighbour_unharmed(self) -> None:
        assert self.identity(NEIGHBOUR) == self.neighbour
        assert condition(self.cluster.get(NEIGHBOUR), "Ready") == "True"
        self.expect_memory(NEIGHBOUR)
        self.expect_answers(NEIGHBOUR)

    def expect_answers(self, *names: str) -> None:
        """Their guests."""
        calls = [f"dormouse-agent ctl exec default/{name} -- echo alive-{name}" for name in names]
        said = self.cluster.node.output("\n".join(calls), seconds=120).split()
        assert sorted(said) == sorted(f"alive-{name}" for name in names)

    def wish(self, mode: str, *names: str) -> None:
        self.cluster.wish(mode, *names)
        for name in names:
            self.cluster.wait_for(name, lambda found: self.is_in(found, mode), mode)

    @staticmethod
    def is_in(found: dict, mode: str) -> bool:
        """With that wish seen: `Running` is what a failed suspend says, too."""
        seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
        ready = mode != "Running" or condition(found, "Ready") == "True"
        return seen and ready and found["status"].get("phase") == mode

    def try_to_suspend(self, *names: str) -> dict[str, str]:
        """What each that failed says; the others are asleep."""
        before = self.pids()
        self.cluster.wish("Suspended", *names)

        def decided(found: dict) -> bool:
            failed = condition_of(found, "Suspended").get("reason") == "SnapshotFailed"
            return self.is_in(found, "Suspended") or (failed and self.is_in(found, "Running"))

        said = {}
        for name in names:
            found = self.cluster.wait_for(name, decided, "suspended, or not")
            if found["status"]["phase"] == "Running":
                suspended = condition_of(found, "Suspended")
                assert suspended["status"] == "False" and condition(found, "Ready") == "True"
                assert found["status"].get("restartCount", 0) == 0
                said[name] = suspended["message"]
        after = self.pids()
        assert {name: after.get(name) for name in said} == {name: before[name] for name in said}
        self.expect_answers(*list(said)[::4])  # each call takes a second in emulation
        self.expect_memory(*said)
        eventually(lambda: not self.half_made(), "nothing half is left", 30, lambda: str(self.half_made()))
        return said

    def half_made(self) -> list[str]:
        """Generations that no record names, what a write left, and templates without a record."""
        listing = self.cluster.node.output(
            f"cd {STATE}; cat sandboxes/*/record.json; echo; ls -d sandboxes/*/gen-* sandboxes/*/*.tmp* sandboxes/*/*.new"
            " templates/*; ls templates/*/template.json",
            check=False,
        ).split()
        records = [json.loads(line)["record"] for line in listing if line.startswith("{")]
        named = {
            f"sandboxes/{record['uid']}/gen-{number}"
            for record in records
            for number in (record["sleeping"], record["memoryGeneration"])
        }
        whole = {path.removesuffix("/template.json") for path in listing if path.endswith("/template.json")}
        paths = {path for path in listing if path.startswith(("sandboxes/", "templates/"))}
        return sorted(path for path in paths - named - whole if not path.endswith("/template.json"))
