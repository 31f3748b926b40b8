"""The e2e tier: kubectl, API server, controller, agent, Cloud Hypervisor, guest. One cluster for
all tests.
"""

from __future__ import annotations

import pytest

from bed import session
from bed.product import VMM_PROGRAMS, built_test

# Ten guests boot at once in an emulated machine; the files of one test shall not fill the node.
AGENT_FLAGS = ("--guest-timeout=240", "--disk-window-mib=64", "--reserve-memory-mib=256")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "real_vmm: needs a guest with a kernel, memory and files of its own; skipped on the fake VMM"
    )
    if not config.option.collectonly:
        session.prepare()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    programs = {f"tests/{name}": path for name in VMM_PROGRAMS if (path := built_test(name))}
    yield from session.cluster_of_session(
        tmp_path_factory.mktemp("cluster"), agent_flags=AGENT_FLAGS, extra_parts=programs, memory_mib=6144
    )


@pytest.fixture(autouse=True)
def _real_vmm_where_it_matters(request, cluster):
    if request.node.get_closest_marker("real_vmm") and not cluster.vmm.real:
        pytest.skip("needs a guest with a kernel and files of its own: there is no Cloud Hypervisor here")


@pytest.fixture
def sandboxes(cluster):
    yield from session.running_sandboxes(cluster)


@pytest.fixture
def eager(cluster):
    yield from session.eager_digests(cluster)


@pytest.fixture
def swap(cluster):
    file = f"{cluster.layout.state}/swap"
    cluster.node.run(f"dd if=/dev/zero of={file} bs=1M count=256 2>/dev/null; chmod 600 {file}; mkswap -q {file}; swapon {file}")
    yield
    cluster.node.run(f"swapoff {file}; rm -f {file}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    session.logs_in_report(item, outcome.get_result())


def pytest_runtest_protocol(item, nextitem):
    return session.run_again_after_a_hang(item, nextitem)
