"""The host itself as the node of the demo, where it has what it takes: no emulation, and full
speed.

`lacks()` decides by trying. The agent then runs on the host in directories, a cgroup slice and an
address range of the demo's own; `stop` takes all of it away again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping

from bed.accelerator import GUEST_SECONDS, PROOF, hypervisor, proof_parts
from bed.daemons import Daemon
from bed.layout import Layout
from bed.node import Command, CommandFailed

RUN = Path("/run/dormouse-demo")  # short: a unix socket's path has 108 bytes
SLICE = "dormouse-demo.slice"
CGROUPS = Path("/sys/fs/cgroup")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
DM_LIST_VERSIONS = 0xC138FD0D  # linux/dm-ioctl.h
DM_HEADER_BYTES = 312
MODULES = ("loop", "dm_mod", "dm_snapshot", "dm_zero", "tun", "veth", "nf_tables", "vhost_vsock")


def lacks() -> str:
    """Why the host cannot be the node; "" when it can. Changes nothing but loaded modules."""
    if os.geteuid() != 0:
        return "not root"
    subprocess.run(["modprobe", "-a", "-q", *MODULES], capture_output=True, timeout=30, check=False)
    for look in (
        _lacks_targets,
        _lacks_loops,
        _lacks_cgroups,
        _lacks_network,
        _is_taken,
        _lacks_kvm,
    ):
        try:
            if why := look():
                return why
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
    return ""


def _lacks_targets() -> str:
    with open("/dev/mapper/control", "rb") as control:
        buffer = bytearray(16384)
        struct.pack_into("IIIII", buffer, 0, 4, 0, 0, len(buffer), DM_HEADER_BYTES)
        fcntl.ioctl(control, DM_LIST_VERSIONS, buffer)
    missing = [name for name in (b"snapshot\0", b"linear\0", b"zero\0") if name not in buffer]
    return f"device-mapper lacks {missing[0][:-1].decode()}" if missing else ""


def _lacks_loops() -> str:
    with open("/dev/loop-control", "rb") as control:
        fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    return ""


def _lacks_cgroups() -> str:
    have = (CGROUPS / "cgroup.controllers").read_text().split()  # not there with cgroup v1
    return "" if {"memory", "pids"} <= set(have) else "cgroup v2 has no memory or pids controller"


def _lacks_network() -> str:
    with open("/dev/net/tun", "rb"):
        pass
    rules = "add table inet dormouse_probe; delete table inet dormouse_probe"
    done = subprocess.run(
        ["unshare", "--net", "nft", rules], capture_output=True, text=True, timeout=20, check=False
    )
    return f"nftables in a network namespace: {done.stderr.strip()}" if done.returncode else ""


def _is_taken() -> str:
    """An agent that is installed here must not meet ours: device and table names are the same."""
    for path in ("/run/dormouse/agent.sock", "/var/lib/dormouse/agent.json", RUN):
        if Path(path).exists():
            return f"{path} is there: Dormouse is at home here already"
    table = subprocess.run(
        ["nft", "list", "table", "inet", "dormouse"], capture_output=True, timeout=20, check=False
    )
    return "nftables has a table of Dormouse already" if table.returncode == 0 else ""


def _lacks_kvm() -> str:
    found = hypervisor()
    if found is None:
        return ""  # the fake needs none
    with tempfile.TemporaryDirectory() as scratch:
        parts = proof_parts(Path(scratch))
        command = [
            str(found), "--kernel", str(parts["vmlinuz"]), "--initramfs", str(parts["guest.cpio"]),
            "--cmdline", "console=ttyS0 quiet", "--memory", "size=256M", "--serial", "tty", "--console", "off",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GUEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"KVM boots no guest within {GUEST_SECONDS} s"
    return (
        ""
        if PROOF.encode() in done.stdout
        else f"KVM boots no guest: {done.stderr.decode(errors='replace')[-200:]}"
    )


class HostNode:
    """The part of bed.node.Node that a Cluster uses, on the host. Not thread-safe, but for `run`.
    """

    def __init__(self, folder: Path, *, parts: Mapping[str, Path], name: str) -> None:
        self.folder = folder
        self.name = name
        self.notes: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.layout = layout(folder)
        for place, source in parts.items():
            target = Path(self.layout.parts) / place
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = [
                "cp",
                "--recursive",
                "--dereference",
                "--reflink=auto",
                "--sparse=always",
                str(source),
                str(target),
            ]
            subprocess.run(copy, check=True)
        self._agent = Daemon("dormouse-agent", folder)
        self._path = f"{self.layout.parts}/bin:{os.environ.get('PATH', os.defpath)}"

    def start(self) -> None:
        for path in (self.layout.state, self.layout.images, Path(self.layout.kubeconfig).parent):
            Path(path).mkdir(parents=True, exist_ok=True)
        (self.folder / "forwarding").write_text(FORWARDING.read_text())
        script = self.folder / "node-exec"
        script.write_text(
            f'#!/bin/sh\n# Runs its arguments on the demo\'s node, which is this host.\nPATH={self._path} exec "$@"\n'
        )
        script.chmod(0o755)

    def start_agent(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._agent.start(
            command, die_with_parent=False, env={**os.environ, "PATH": self._path, **environment}
        )

    def agent_pids(self) -> list[int]:
        pid = self._agent.pid()
        return [] if pid is None else [pid]

    def kill_agent(self) -> None:
        self._agent.stop(grace_seconds=0)

    def run(
        self,
        command: Command,
        *,
        seconds: float = 60,
        check: bool = True,
        stdin: str | bytes | None = None,
        text: bool = True,
    ) -> subprocess.CompletedProcess:
        source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run(
            ["sh", "-c", command] if isinstance(command, str) else list(command),
            capture_output=True,
            text=text,
            errors="replace" if text else None,
            timeout=seconds,
            check=False,
            env={**os.environ, "PATH": self._path},
            **source,
        )
        if check and done.returncode != 0:
            raise CommandFailed(done.returncode, command, done.stdout, done.stderr)
        return done

    def output(self, command: Command, **how) -> str:
        return self.run(command, **how).stdout.rstrip("\n")

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        Path(path).write_text(content)
        Path(path).chmod(mode)

    def read(self, path: str) -> str:
        return Path(path).read_text()

    def port(self, node_port: int) -> int:
        return node_port

    def stop(self) -> None:
        down(self.folder)


def layout(folder: Path) -> Layout:
    return Layout(
        parts=str(folder / "parts"), state=str(folder / "state"), run=str(RUN), slice=SLICE,
        kubeconfig=str(folder / "agent.kubeconfig"), log=str(folder / "dormouse-agent.log"),
        api_host="127.0.0.1", node_ip="127.0.0.1", host_namespaces="self", on_loopback=True,
    )  # fmt: skip


def down(folder: Path) -> None:
    """Ends the agent and all that it left; the sandboxes have been deleted before, or are given up
    now.
    """
    if not (folder / "forwarding").exists():
        return
    Daemon("dormouse-agent", folder).stop(grace_seconds=10)
    group = CGROUPS / SLICE
    if group.is_dir():
        (group / "cgroup.kill").write_text("1")
        quiet(
            "sh",
            "-c",
            'until rmdir "$0"/*/ "$0" 2>/dev/null || [ ! -d "$0" ]; do :; done',
            str(group),
        )
    names = (
        subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, timeout=20, check=False)
        if shutil.which("dmsetup")
        else None
    )
    for line in names.stdout.splitlines() if names else ():
        if line.startswith("dormouse-"):
            quiet("dmsetup", "remove", "--noudevsync", line.split()[0])
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if backing.read_text().startswith(str(folder)):
            quiet("losetup", "-d", f"/dev/{backing.parents[1].name}")
    for path in [*RUN.glob("netns/*"), *RUN.glob("vm/*")]:
        quiet("umount", str(path))
    quiet("nft", "delete table inet dormouse")
    FORWARDING.write_text((folder / "forwarding").read_text())
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.rmtree(folder)


def quiet(*command: str) -> None:
    subprocess.run(command, capture_output=True, timeout=30, check=False)
