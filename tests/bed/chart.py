"""The chart, rendered by helm: what the tests and the demo install is what a user installs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bed import tools

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "dormouse"
API_VERSION = "dormouse.dev/v1alpha1"
RELEASE = "dormouse"
NAMESPACE = "dormouse-system"
CONTROLLER_ACCOUNT = "dormouse-controller"
AGENT_ACCOUNT = "dormouse-agent"
# What only a whole cluster can run.
WORKLOADS = frozenset({"Deployment", "DaemonSet", "Pod", "PodDisruptionBudget", "Service"})


class ChartError(RuntimeError):
    """helm refused; the message is its own."""


def helm(*arguments: str) -> str:
    done = subprocess.run(
        [str(tools.find("helm")), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise ChartError(f"helm {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def render(*arguments: str, leave_out: frozenset[str] = frozenset()) -> str:
    """All manifests as one YAML stream, the namespace first, without the kinds in `leave_out`."""
    rendered = helm(
        "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", tools.KUBERNETES_VERSION,
        "--set", "namespace.create=true", *arguments,
    )  # fmt: skip
    documents = [document for document in re.split(r"(?m)^---\s*$", rendered) if kind_of(document)]
    kept = [document for document in documents if kind_of(document) not in leave_out]
    kept.sort(
        key=lambda document: kind_of(document) != "Namespace"
    )  # stable: the rest keeps helm's order
    return "---\n" + "---\n".join(kept)


def kind_of(document: str) -> str:
    match = re.search(r"(?m)^kind: (\S+)$", document)
    return match[1] if match else ""
