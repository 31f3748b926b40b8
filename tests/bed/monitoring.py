"""The metrics that the chart's alerts and its dashboard ask for, and those that the programs have."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bed.chart import CHART

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("src", "controller", "node-agent")
# What is in a PromQL expression beside names of metrics.
WORDS = {"and", "by", "code", "instance", "kind", "le", "name", "on", "or", "phase", "result", "step", "unless"}


def alert_expressions() -> list[str]:
    """As they are in the chart; jobs are still called AGENT and CONTROLLER."""
    text = (CHART / "files/alerts.yaml").read_text(encoding="utf-8")
    return [" ".join(found.split()) for found in re.findall(r"expr: (?:>-\n)?((?:.*\n)(?: {10,}.*\n)*)", text)]


def dashboard() -> dict:
    return json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]


def metrics_of(expression: str) -> set[str]:
    """Names as a program exposes them: a histogram's without _bucket, _sum and _count."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    names = set(re.findall(r"\b[a-z][a-z0-9_]*\b(?!\s*\()", bare)) - WORDS
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def asked_for() -> set[str]:
    asked = set().union(*(metrics_of(each) for each in alert_expressions() + dashboard_expressions()))
    return asked - {"up"}  # Prometheus' own


def exposed(text: str) -> set[str]:
    """The names of a /metrics page."""
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def in_the_sources() -> set[str]:
    """What the programs ever make, whatever must happen first."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.cc"):
            if not path.name.endswith("_test.cc"):
                text = path.read_text(encoding="utf-8")
                found |= set(re.findall(r"Make(?:Counter|Gauge|Histogram)\(\s*\"([a-z_]+)\"", text))
    return found
