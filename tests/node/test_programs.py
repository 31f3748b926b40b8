"""GoogleTest programs that need a node: real device-mapper, namespaces, KVM."""

from __future__ import annotations

import pytest

from bed.product import NODE_PROGRAMS, built_test

SECONDS = 300


@pytest.mark.parametrize("name", NODE_PROGRAMS)
def test_program_passes_on_the_node(cluster, name):
    if built_test(name) is None:
        pytest.skip(f"{name} is not part of this build")
    # Golden files lie beside the sources, and say nothing of a node; the pool's tests compare states of links that
    # emulation is late with.
    program = f"{cluster.layout.parts}/tests/{name} --gtest_filter=-RulesTest.*:NetPoolTest.*"
    command = f"cd /tmp && timeout {SECONDS} {program}"
    done = cluster.node.run(command, seconds=SECONDS + 30, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
