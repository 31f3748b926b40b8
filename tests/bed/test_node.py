"""The node keeps its promises to the tests that run in it."""

import subprocess

import pytest

from bed.node import CommandFailed, Node

NEEDED = """
    test -c /dev/kvm && test -c /dev/net/tun && test -c /dev/mapper/control
    findmnt -no FSTYPE /var/lib/dormouse
    findmnt -no FSTYPE /sys/fs/cgroup
    findmnt -no PROPAGATION /
    cat /proc/sys/net/ipv4/ip_forward
    dmsetup version >/dev/null
    ip netns add probe && ip -n probe tuntap add tap0 mode tap
    ip netns exec probe nft add table inet probe
    ip netns delete probe
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    (tmp_path_factory.mktemp("parts") / "a file").write_text("brought along")
    with Node(
        tmp_path_factory.mktemp("node"),
        life_seconds=300,
        parts={"share/a file": tmp_path_factory.getbasetemp() / "parts0" / "a file"},
    ) as running:
        yield running


def test_node_has_what_a_kubernetes_node_has(node):
    assert node.output(NEEDED).split() == ["xfs", "cgroup2", "shared", "1"]


def test_command_keeps_its_arguments_input_and_exit_code(node):
    done = node.run(
        ["sh", "-c", 'cat; printf "%s|" "$@"; exit 3', "sh", "a b", "$c", ""],
        stdin="in ",
        check=False,
    )
    assert (done.stdout, done.returncode) == ("in a b|$c||", 3)
    with pytest.raises(CommandFailed, match="no such thing"):
        node.run("echo no such thing >&2; false")


def test_command_that_takes_too_long_is_no_hang_of_the_machine(node):
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sleep", "30"], seconds=1)


def test_parts_and_files_arrive(node, tmp_path):
    assert node.read("/opt/dormouse/share/a file") == "brought along"
    (tmp_path / "out").mkdir()
    (tmp_path / "file").write_bytes(b"\0bytes\n")
    node.copy_in(tmp_path / "file", "/tmp/in")
    node.copy_out("/tmp/in/file", tmp_path / "out")
    assert (tmp_path / "out" / "file").read_bytes() == b"\0bytes\n"


def test_power_cut_keeps_what_was_synced_and_nothing_else(node):
    node.run("echo kept >/var/lib/dormouse/kept && sync; echo gone >/root/gone")
    node.power_cut()
    assert (
        node.output("cat /var/lib/dormouse/kept; test -e /root/gone || echo pristine")
        == "kept\npristine"
    )
