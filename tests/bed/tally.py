"""Counting tests: what ctest and pytest wrote as JUnit XML, and the summary that `make test` ends
with.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

LONGEST_CAUSE = 500  # characters


@dataclass
class Tally:
    """What became of one tier. A tier that could not run at all is one failure."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    seconds: float = 0

    def add(self, other: "Tally") -> "Tally":
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self

    def fail(self, what: str) -> "Tally":
        self.failed.append(what)
        return self


def read_junit(path: Path) -> Tally:
    """An empty tally where the file is missing or was cut short: the caller knows the exit code."""
    tally = Tally()
    try:
        cases = ElementTree.parse(path).iter("testcase")
    except (OSError, ElementTree.ParseError):
        return tally
    for case in cases:
        group, own_name = case.get("classname", ""), case.get("name", "")
        name = own_name if group in ("", own_name) else f"{group}::{own_name}"
        wrong = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
        if wrong is not None or case.get("status") == "fail":
            tally.failed.append(": ".join(filter(None, (name, _cause(case, wrong)))))
        elif (skipped := case.find("skipped")) is not None or case.get("status") in (
            "notrun",
            "disabled",
        ):
            tally.skipped.append((name, _reason(case, skipped)))
        else:
            tally.passed += 1
    return tally


def _cause(case: ElementTree.Element, wrong: ElementTree.Element | None) -> str:
    """On one line, and short: of a log that was cut off, the summary may be all that is left."""
    said = "" if wrong is None else (wrong.get("message") or "")
    if not said:
        # GoogleTest prints the file and "Failure", and then what it expected and what it got.
        _, _, said = (case.findtext("system-out") or "").partition(": Failure\n")
    line = " ".join(said.split())
    return line if len(line) <= LONGEST_CAUSE else line[:LONGEST_CAUSE] + "..."


def _reason(case: ElementTree.Element, skipped: ElementTree.Element | None) -> str:
    said = "" if skipped is None else (skipped.get("message") or "")
    if said and not said.startswith("SKIP_REGULAR_EXPRESSION"):
        return said
    # GoogleTest prints the file, "Skipped", and then why.
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    for number, line in enumerate(lines):
        if line.endswith("Skipped") and number + 1 < len(lines):
            return lines[number + 1]
    return said or "no reason given"


def summary(tallies: dict[str, Tally], real: list[str], notes: list[str]) -> str:
    """For people; its last line is "N passed, N failed, N skipped"."""
    lines = ["", "What was real, and what was not"]
    lines += [f"  {line}" for line in real]
    lines += ["", f"{'tier':<8}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>9}"]
    for name, tally in tallies.items():
        lines.append(
            f"{name:<8}{tally.passed:>8}{len(tally.failed):>8}{len(tally.skipped):>9}{tally.seconds:>7.0f} s"
        )
    for name, tally in tallies.items():
        lines += _grouped_skips(name, tally.skipped)
    for name, tally in tallies.items():
        lines += [f"FAILED {name}: {what}" for what in tally.failed]
    lines += [f"NOTE {note}" for note in notes]
    passed = sum(tally.passed for tally in tallies.values())
    failed = sum(len(tally.failed) for tally in tallies.values())
    skipped = sum(len(tally.skipped) for tally in tallies.values())
    return "\n".join([*lines, "", f"{passed} passed, {failed} failed, {skipped} skipped"])


def not_run(tiers: Sequence[str], run: Sequence[str]) -> list[str]:
    """A note on what a reader might think was tested, and how to run it; none where nothing is left."""
    left = [tier for tier in tiers if tier not in run]
    return [f"not run: {', '.join(left)}; run them with: make test TIERS=\"{' '.join(left)}\""] if left else []


def _grouped_skips(tier: str, skipped: list[tuple[str, str]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in skipped:
        by_reason.setdefault(reason, []).append(name)
    lines = []
    for reason, names in by_reason.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"SKIPPED {tier}: {len(names)} ({reason}): {shown}")
    return lines
