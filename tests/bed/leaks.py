"""What a node holds in Dormouse's names, and which of it belongs to no sandbox.

Independent of the agent and its own sweep: the lists are the kernel's (on_node/list-owned), the
sandboxes are the API server's, and what joins them is the rule for names: the first 12 hex digits
of the SHA-256 of metadata.uid.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Iterable

SHORT = re.compile(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])")
VETH = re.compile(r"dmv([0-9a-f]{12})")
# Of the agent itself, or of all sandboxes of one image.
AGENTS_OWN_SOCKETS = frozenset({"agent.sock"})


def short_id(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Owned:
    """One thing on the node."""

    kind: str  # dm loop netns vmdir mount cgroup process files template base quarantine veth socket core
    name: str
    detail: str

    @property
    def sandbox(self) -> str:
        """The short id that its name tells, or "" when it is shared or tells nothing."""
        if self.kind in ("files", "template"):
            return short_id(self.name)
        if self.kind == "loop":
            uid = re.search(r"/sandboxes/([0-9a-f-]{36})/", self.detail)
            return short_id(uid[1]) if uid else ""
        if veth := VETH.match(self.name):
            return veth[1]
        if self.kind in ("base", "quarantine") or self.name.startswith("dormouse-base-"):
            return ""
        found = SHORT.search(self.name)
        return found[0] if found else ""

    @property
    def cache(self) -> bool:
        """May stay without any sandbox: a file that holds no kernel object. A boot snapshot is named after a hash, a
        template after the UID of its object."""
        return self.kind == "base" or (self.kind == "template" and "-" not in self.name)

    @property
    def shared(self) -> bool:
        """May be there while any sandbox is."""
        return (
            (self.kind == "dm" and self.name.startswith("dormouse-base-"))
            or (self.kind == "loop" and "/bases/" in self.detail)
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.detail}".rstrip()


def parse(listing: str) -> list[Owned]:
    return [Owned(*line.split("\t")) for line in listing.splitlines() if line.count("\t") == 2]


def leaks(owned: Iterable[Owned], uids: Iterable[str]) -> list[Owned]:
    """Those of `owned` that none of the objects `uids`, sandboxes and templates, accounts for. What several share is
    one when there is no object at all; caches may stay.
    """
    known = {short_id(uid) for uid in uids}
    found = []
    for thing in owned:
        if thing.kind == "socket" and thing.name in AGENTS_OWN_SOCKETS:
            continue
        if thing.cache:
            continue
        if thing.shared:
            if not known:
                found.append(thing)
        elif thing.sandbox not in known:
            found.append(thing)
    return found
