"""What a benchmark says: figures with a target, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Sequence


@dataclass(frozen=True)
class Figure:
    """`target` reads "<= 60" or ">= 5", or is empty where nothing was promised; then it holds."""

    name: str
    value: float
    unit: str
    target: str
    holds: bool

    @staticmethod
    def of(name: str, value: float, unit: str, target: str = "") -> "Figure":
        holds = True
        if target:
            relation, limit = target.split()
            holds = value <= float(limit) if relation == "<=" else value >= float(limit)
        return Figure(name, round(value, 3), unit, target, holds)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(figures: Sequence[Figure]) -> str:
    width = max(len(figure.name) for figure in figures)
    lines = []
    for figure in figures:
        verdict = ("holds" if figure.holds else "DOES NOT HOLD") if figure.target else ""
        lines.append(
            f"{figure.name:<{width}}  {figure.value:>12.2f} {figure.unit:<6} {figure.target:>10}  {verdict}"
        )
    return "\n".join(lines)


def write(figures: Sequence[Figure], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
