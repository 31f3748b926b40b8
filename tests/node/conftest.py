"""The node tier: the agent with real device-mapper, loops, namespaces and nftables, and the fake
VMM.
"""

from __future__ import annotations

import pytest

from bed import session
from bed.product import NODE_PROGRAMS, built_test
from bed.state_disk import spare_disks

# The kill matrix parks one worker for each of its sandboxes; a fake VM needs next to nothing.
AGENT_FLAGS = (
    "--workers=64",
    "--disk-window-mib=8",
    "--reserve-memory-mib=0",
    "--cpu-overcommit=64",
    "--disk-reserve-mib=1024",
)


def pytest_configure(config):
    if not config.option.collectonly:
        session.prepare()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    programs = {f"tests/{name}": path for name in NODE_PROGRAMS if (path := built_test(name))}
    yield from session.cluster_of_session(
        tmp_path_factory.mktemp("cluster"),
        vmm="fake",
        agent_flags=AGENT_FLAGS,
        extra_parts=programs,
        extra_disks=spare_disks(tmp_path_factory.mktemp("spare")),
    )


@pytest.fixture
def sandboxes(cluster):
    yield from session.running_sandboxes(cluster)


@pytest.fixture
def eager(cluster):
    yield from session.eager_digests(cluster)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    session.logs_in_report(item, outcome.get_result())


def pytest_runtest_protocol(item, nextitem):
    return session.run_again_after_a_hang(item, nextitem)
