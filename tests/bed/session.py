"""What the pytest sessions of the node and e2e tiers have in common: a network of their own, one
cluster, a node that every test leaves as it found it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from bed import tools
from bed.accelerator import choose_accelerator
from bed.cluster import AGENT_LOG, Cluster
from bed.guest_parts import guest_parts
from bed.manifests import TEMPLATES
from bed.private_network import enter_private_network

# Of a machine; what starts the tests gives it as long as it gives them.
LIFE_SECONDS = float(os.environ.get("DORMOUSE_MACHINE_SECONDS", "3000"))


def prepare() -> None:
    """Fetches what comes over the network, and leaves the network."""
    for name in ("kube-apiserver", "kubectl", "helm"):
        tools.find(name)
    guest_parts()
    choose_accelerator()
    if not enter_private_network():
        print("bed: no network namespace of our own: ports may clash", file=sys.stderr)


class Sandboxes:
    """Applies sandboxes; they are gone after the test, and so is all that was theirs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.names: list[str] = []
        self._templates: list[str] = []

    def __call__(self, *manifests: dict) -> None:
        for each in manifests:
            names = self.names if each["kind"] == "Sandbox" else self._templates
            names.append(each["metadata"]["name"])
        self._cluster.apply(*manifests)

    def remove(self) -> None:
        self._cluster.delete(*self.names)
        self._cluster.wait_gone(*self.names)
        self._cluster.delete(*self._templates, plural=TEMPLATES)
        self._cluster.wait_gone(*self._templates, plural=TEMPLATES)
        self._cluster.expect_no_leaks()


def running_sandboxes(cluster: Cluster):
    """The body of a fixture: whatever a test did to the agent and the API server, the next finds
    both running.
    """
    made = Sandboxes(cluster)
    yield made
    if not cluster.api.running():
        cluster.api.start_api_server()
    if not cluster.controller.running():
        cluster.controller.start()
    if not cluster.agent_pids():
        cluster.start_agent()
    cluster.arm("")
    made.remove()


def eager_digests(cluster: Cluster):
    """The body of a fixture: an agent that computes digests at once."""
    usual = cluster.agent_flags
    cluster.agent_flags = [*usual, "--digest-after=0"]
    cluster.restart_agent()
    yield
    cluster.agent_flags = usual
    cluster.restart_agent()


def keep_logs(cluster: Cluster) -> None:
    """Beside the others, in the cluster's folder, before the machine ends."""
    try:
        (cluster.folder / "agent.log").write_text(cluster.node.read(AGENT_LOG))
    except Exception as error:  # the machine may be what has failed
        print(f"bed: no agent log: {error}", file=sys.stderr)


def add_notes(cluster: Cluster) -> None:
    """For the summary of `make test`."""
    path = os.environ.get("DORMOUSE_NOTES")
    if path and cluster.node.notes:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{note}\n" for note in cluster.node.notes)


def cluster_of_session(folder: Path, **options):
    """The body of a session's fixture. $DORMOUSE_STATE_FS: what the node keeps its state on."""
    state_fs = os.environ.get("DORMOUSE_STATE_FS", "xfs")
    cluster = Cluster(folder, life_seconds=LIFE_SECONDS, state_fs=state_fs, **options)
    try:
        with cluster:
            print(f"\nbed: the VMM is {cluster.vmm.describe()}", file=sys.stderr)
            Machine.cluster = cluster
            yield cluster
            keep_logs(cluster)
    finally:
        Machine.cluster = None
        add_notes(cluster)


class Machine:
    """The session's cluster, and whether its machine has been forgiven its one hang."""

    cluster: Cluster | None = None
    forgiven = False


def run_again_after_a_hang(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """pytest_runtest_protocol: a test under which the emulated machine itself hung (it answers nobody) says nothing of
    the product. The machine is started anew, once in a session and noted, and the test runs on it. A test that failed
    on a machine that lives is never run again.
    """
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if nextitem is not None and any(report.failed for report in reports) and hung():
        restart_hung_machine(item.nodeid)
        item._initrequest()  # as a fresh item: pytest forgets the fixtures' values
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def hung() -> bool:
    cluster = Machine.cluster
    return cluster is not None and not Machine.forgiven and not cluster.node.answers()


def restart_hung_machine(during: str) -> None:
    Machine.forgiven = True
    cluster = Machine.cluster
    cluster.node.restart(during)
    cluster.prepare_node()
    cluster.start_agent()
    left = [each["metadata"]["name"] for each in cluster.list()]
    cluster.delete(*left)
    cluster.wait_gone(*left)
    cluster.expect_no_leaks()


def guests_said(cluster: Cluster) -> str:
    """What was told of each sandbox, and the last of its console: why a guest fell, nobody else can say."""
    said = []
    for name in (each["metadata"]["name"] for each in cluster.list()):
        told = (f"{event.get('reason')}: {event.get('note')}" for event in cluster.events(name))
        said.append("\n".join([f"events of {name}:", *told]) + cluster.console(name))
    return "\n".join(said)


def logs_in_report(item: pytest.Item, report: pytest.TestReport) -> None:
    """What the agent, the controller and the guests said last, under a failure."""
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster) and report.when != "teardown":
        for name, read in (
            ("agent", lambda: cluster.agent_log(80)),
            ("agent's threads", cluster.agent_threads),
            ("guests", lambda: guests_said(cluster)),
        ):
            try:
                report.sections.append((name, read()))
            except Exception as error:
                report.sections.append((name, f"(no log: {error})"))
        report.sections.append(("controller", cluster.controller.log_tail(30)))
