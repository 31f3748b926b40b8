"""What a program finds in a machine: names, limits, devices, an init that obeys, and an identity of its own."""

from __future__ import annotations

import pytest

from bed.manifests import clone, sandbox, template
from bed.session import running_sandboxes

# In the machine's own words: one line each.
LOOK = """
getent hosts localhost | head -1 | awk '{print $2}'
getent hosts "$(hostname)" | awk '{print $2}'
cat /etc/hostname
ulimit -n; ulimit -Hn
stat -c '%a' /run/lock /run/user /tmp
for each in /dev/fd /dev/stdin /dev/ptmx /dev/shm /dev/net/tun /dev/fuse; do test -e $each || echo "no $each"; done
"""
WHO = "cat /etc/machine-id /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module", autouse=True)
def real_guest(cluster):
    if not cluster.vmm.real:
        pytest.skip("the stand-in has no guest with files of its own")


@pytest.fixture(scope="module")
def made(cluster):
    yield from running_sandboxes(cluster)


def test_names_limits_directories_and_devices_are_there(cluster, made):
    made(sandbox("machine", "debian-12", dns={"nameservers": ["9.9.9.9"], "searches": ["corp.example"]}))
    cluster.wait_ready("machine")
    said = cluster.exec("machine", ["sh", "-c", LOOK]).stdout.split("\n")
    assert said[:8] == ["localhost", "machine", "machine", "1048576", "1048576", "1777", "755", "1777"], said
    assert said[8:] == [""], said
    assert cluster.exec("machine", ["cat", "/etc/resolv.conf"]).stdout == "nameserver 9.9.9.9\nsearch corp.example\n"


def test_a_start_has_an_identity_of_its_own_and_a_reboot_keeps_it(cluster, made):
    made(sandbox("one", "debian-12", restartPolicy="Always"), sandbox("two", "debian-12"))
    cluster.wait_ready("one", "two")
    one, two = (cluster.exec(name, ["sh", "-c", WHO]).stdout.split() for name in ("one", "two"))
    assert one[0] != two[0] and one[1] != two[1]
    cluster.exec("one", ["sh", "-c", "echo mine >/etc/ssh-was-here; sync; kill -TERM 1"], check=False)
    cluster.wait_for("one", lambda sbx: sbx["status"].get("restartCount") == 1, "started anew")
    cluster.wait_ready("one")
    again = cluster.exec("one", ["sh", "-c", WHO]).stdout.split()
    assert again[0] == one[0], "the machine-id of a sandbox is the same at each boot"
    assert again[1] != one[1]


def test_poweroff_from_inside_ends_the_machine(cluster, made):
    made(sandbox("ends", "busybox", restartPolicy="Never"))
    cluster.wait_ready("ends")
    cluster.exec("ends", ["poweroff"], check=False)
    ended = cluster.wait_phase("ends", "Finished")
    assert ended["status"]["finishedAt"]


def test_a_clone_of_a_full_disk_starts_as_somebody_else(cluster, made):
    made(sandbox("full", "debian-12"))
    cluster.wait_ready("full")
    fill = "dd if=/dev/zero of=/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/fill2 bs=1 count=4096 2>/dev/null; sync; df / | tail -1"
    cluster.exec("full", ["sh", "-c", fill], check=False, seconds=240)
    cluster.apply(template("full-template", "full"))
    cluster.wait_template("full-template")
    made(clone("full-clone", "full-template"))
    cluster.wait_ready("full-clone")
    source, other = (cluster.exec(name, ["sh", "-c", WHO]).stdout.split() for name in ("full", "full-clone"))
    assert source[0] != other[0] and source[1] != other[1]
    assert cluster.exec("full-clone", ["hostname"]).stdout == "full-clone\n"
    cluster.delete("full-clone")
    cluster.wait_gone("full-clone")
    cluster.delete("full-template", plural="snapshottemplates")
    cluster.wait_gone("full-template", plural="snapshottemplates")
