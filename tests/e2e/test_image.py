"""The agent as its image holds it: nothing of the node but what the chart mounts."""

from __future__ import annotations

import subprocess

import pytest

from bed.guest_parts import guest_parts
from bed.manifests import sandbox
from bed.product import ROOT, build_folder

PLACE = "/srv/rootfs"
MOUNTED = ("proc", "sys", "dev", "run/dormouse", "var/lib/dormouse", "etc/dormouse")
# What the image has where the agent looks for it by itself.
IN_THE_IMAGE = ("--vmm=", "--launcher=", "--kernel=", "--initramfs=")


@pytest.fixture
def from_its_image(cluster, tmp_path):
    """The cluster with the agent of the image; afterwards with the usual one again."""
    guest = guest_parts()
    command = [
        str(ROOT / "deploy/images/make-images"), "agent", f"--out={tmp_path}", f"--build={build_folder()}",
        f"--cloud-hypervisor={cluster.vmm.binary}", f"--kernel={guest.kernel}", f"--modules-dir={guest.modules}",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    cluster.node.copy_in(tmp_path / "agent/rootfs", "/srv")
    cluster.node.run(["mkdir", "-p", *(f"{PLACE}/{place}" for place in MOUNTED)])
    usual = cluster.agent_command
    cluster.agent_command = lambda: [
        # Failpoints are files of the node, which the image does not see.
        "env", "-u", "DORMOUSE_FAILPOINTS_FILE", "-u", "DORMOUSE_FAILPOINTS_TRACE",
        f"{cluster.layout.parts}/bed/in-image", PLACE, "/usr/bin/dormouse-agent",
        *(flag for flag in usual()[1:] if not flag.startswith(IN_THE_IMAGE)),
    ]  # fmt: skip
    cluster.restart_agent()
    yield
    cluster.agent_command = usual
    cluster.restart_agent()
    cluster.node.run(["rm", "-rf", PLACE])


def test_a_sandbox_starts_sleeps_and_wakes_by_the_agents_image_alone(cluster, sandboxes, from_its_image):
    roots = {cluster.node.output(["readlink", f"/proc/{pid}/root"]).strip() for pid in cluster.agent_pids()}
    assert roots == {PLACE}
    sandboxes(sandbox("imaged", "debian-12"))
    cluster.wait_ready("imaged")
    assert cluster.exec("imaged", ["echo", "hello"]).stdout.strip() == "hello"
    cluster.bring("imaged", "Suspended")
    cluster.bring("imaged", "Running")
    assert cluster.exec("imaged", ["echo", "again"]).stdout.strip() == "again"
    cluster.delete("imaged")
    cluster.wait_gone("imaged")
