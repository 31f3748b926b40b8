"""The node of the tests and the demo: a QEMU machine with device-mapper, nftables, cgroup v2 and a
KVM that works.

    with Node(folder, parts={"bin/dormouse-agent":
    Path("build/release/node-agent/dormouse-agent")}) as node:
        node.run(["/opt/dormouse/bin/dormouse-agent", "--version"])
        node.power_cut()                      # and back, with the same state disk

Inside: root disk pristine at every start; the state disk, fresh per Node and kept over power cuts,
at /var/lib/dormouse; the parts (bed.parts) at /opt/dormouse. The host is 10.0.2.2 from there.
Everything runs as root.

The machine dies with its owner, and after `life_seconds` at the latest. A machine that hangs while
it starts is started once more, which is said in `notes`: whoever prints a summary prints them. A
failed command is never retried.

By hand:  python3 -m bed.node --state-dir DIR up | exec -- COMMAND | down
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Mapping, Sequence

from bed.accelerator import choose_accelerator
from bed.debian import run as run_tool
from bed.node_image import node_image
from bed.parts import make_parts_disk
from bed.qemu import Disk, Machine, MachineError
from bed.ssh import Command, Ssh

BOOT_SECONDS = 120  # 6 in practice on an idle machine
ANSWER_SECONDS = 60


class NodeHung(MachineError):
    """The machine runs and does not answer: emulation's fault, or the kernel's. `Node.restart` may
    be tried once.
    """


class Node:
    def __init__(
        self,
        folder: Path,
        *,
        parts: Mapping[str, Path] | None = None,
        name: str = "node-a",
        state_fs: str = "xfs",
        state_gib: int = 16,
        state_cache: str = "unsafe",
        memory_mib: int = 3072,
        cpus: int = 3,
        accelerator: str | None = None,
        life_seconds: float = 3600,
        modules: Sequence[str] = (),
        forwards: Sequence[int] = (),
        extra_disks: Sequence[Path] = (),
    ) -> None:
        """Nothing runs yet. `folder` keeps the state disk and the console's log, `console.log`.

        modules: kernel modules beside those every node loads. forwards: TCP ports of the node that
        `port()` makes reachable from the host. extra_disks: raw files, seen as /dev/vdd,
        /dev/vde... cpus: one more than programs run on (node_root/setup says why). accelerator:
        "tcg" or "kvm"; None takes KVM where it was seen to work (bed.accelerator).
        """
        self.folder = folder
        self.name = name
        self.notes: list[str] = []
        self.boot_seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        image = node_image()
        self._key = image.ssh_key
        self.state_disk = folder / "state.img"
        parts_disk = folder / "parts.img"
        make_parts_disk(parts or {}, parts_disk)
        make_state_disk(self.state_disk, state_fs, state_gib)
        words = [f"node.name={name}"] + ([f"node.modules={','.join(modules)}"] if modules else [])
        self.machine = Machine(
            kernel=image.vmlinux,
            initramfs=image.initramfs,
            console=folder / "console.log",
            disks=[
                Disk(image.root_disk, scratch=True), Disk(self.state_disk, cache=state_cache),
                Disk(parts_disk, read_only=True),
                *(Disk(path, cache=state_cache) for path in extra_disks),
            ],
            memory_mib=memory_mib,
            cpus=cpus,
            accelerator=accelerator or choose_accelerator(),
            life_seconds=life_seconds,
            kernel_arguments=" ".join(words),
            forwards=(22, *forwards),
        )
        self.ssh: Ssh | None = None

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, outlives_us: bool = False) -> Node:
        """Boots to a working ssh. One hang is forgiven, and noted."""
        try:
            self.boot(outlives_us)
        except MachineError as error:
            self._note(f"did not start, and was started once more: {str(error).splitlines()[0]}")
            self.stop()
            self.boot(outlives_us)
        return self

    def stop(self) -> None:
        """The machine's end; the state disk stays in the folder."""
        self.machine.kill()
        if self.ssh:
            self.ssh.close()
            self.ssh = None

    def power_cut(self, start: bool = True) -> None:
        """What the machine had written to its disk is there when it comes back; what it had not is
        not.
        """
        self.stop()
        if start:
            self.start()

    def restart(self, why: str) -> None:
        """After NodeHung: cut and start, and say so in the notes."""
        self._note(f"hung and was restarted: {why}")
        self.power_cut()

    def run(
        self,
        command: Command,
        *,
        seconds: float = 60,
        check: bool = True,
        stdin: str | bytes | None = None,
        text: bool = True,
    ) -> subprocess.CompletedProcess:
        """Runs to the end; stdout and stderr apart. CalledProcessError (its notes show stderr) if
        it fails.

        TimeoutExpired if it takes too long, NodeHung if the machine itself no longer answers.
        """
        source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        try:
            done = subprocess.run(
                self._ssh().arguments(command, "-T"),
                capture_output=True,
                text=text,
                errors="replace" if text else None,
                timeout=seconds,
                **source,
            )
        except subprocess.TimeoutExpired:
            self._check_alive()
            raise
        if done.returncode == 255:  # the command's own, or ssh's
            self._check_alive()
        if check and done.returncode != 0:
            raise CommandFailed(done.returncode, command, done.stdout, done.stderr)
        return done

    def output(self, command: Command, **how) -> str:
        """stdout of `run`, without the last newline."""
        return self.run(command, **how).stdout.rstrip("\n")

    def popen(self, command: Command, **how) -> subprocess.Popen:
        """A command that goes on; `how` is Popen's. Ending the Popen closes its stdin, but does
        not kill it there.
        """
        return subprocess.Popen(
            self._ssh().arguments(command, "-T"), **{"stdin": subprocess.DEVNULL, **how}
        )

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Makes or replaces a small file; its folder is made if need be."""
        data = content.encode() if isinstance(content, str) else content
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], stdin=data, text=False)

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    def copy_in(self, source: Path, target_folder: str, seconds: float = 300) -> None:
        """A file or folder, by its own name, into a folder of the node. Large ones go on the parts
        disk instead.
        """
        pack = subprocess.Popen(
            ["tar", "-C", str(source.parent), "--sparse", "-cf", "-", source.name],
            stdout=subprocess.PIPE,
        )
        self._transfer(
            pack,
            f"mkdir -p {target_folder} && tar -C {target_folder} -xf -",
            pack.stdout,
            None,
            seconds,
        )

    def copy_out(self, source: str, target_folder: Path, seconds: float = 300) -> None:
        """The other way."""
        target_folder.mkdir(parents=True, exist_ok=True)
        parent, _, name = source.rstrip("/").rpartition("/")
        unpack = subprocess.Popen(
            ["tar", "-C", str(target_folder), "-xf", "-"], stdin=subprocess.PIPE
        )
        self._transfer(
            unpack, f"tar -C {parent or '/'} --sparse -cf - {name}", None, unpack.stdin, seconds
        )

    def port(self, node_port: int) -> int:
        """The port on the host's 127.0.0.1 that leads to one of `forwards`."""
        return self.machine.ports[node_port]

    def console(self) -> str:
        """What the machine has printed since it was last started."""
        return self.machine.console_text()

    def answers(self, seconds: float = ANSWER_SECONDS) -> bool:
        """By a connection of its own: the shared one may be what is stuck."""
        try:
            probe = self._ssh().arguments("true", "-T", "-oControlPath=none")
            return (
                subprocess.run(
                    probe, timeout=seconds, stdin=subprocess.DEVNULL, capture_output=True
                ).returncode
                == 0
            )
        except subprocess.TimeoutExpired:
            return False

    def boot(self, outlives_us: bool = False, seconds: float = BOOT_SECONDS) -> None:
        """`start`, but a hang is an error at once."""
        began = time.monotonic()
        self.machine.start(outlives_us)
        self.machine.wait_for("NODE READY", seconds)
        self.ssh = Ssh(self.port(22), self._key)
        try:
            self.ssh.connect(ANSWER_SECONDS)
        except subprocess.SubprocessError as error:
            raise self.machine.error(f"is ready, but ssh is not: {error}") from error
        self.boot_seconds = time.monotonic() - began

    def _ssh(self) -> Ssh:
        if self.ssh is None:
            raise MachineError(f"{self.name} is not running")
        return self.ssh

    def _check_alive(self) -> None:
        if not self.machine.running():
            raise self.machine.error("ended")
        if not self.answers():
            raise NodeHung(str(self.machine.error("does not answer")))

    def _transfer(
        self,
        local: subprocess.Popen,
        command: str,
        stdin: IO | None,
        stdout: IO | None,
        seconds: float,
    ) -> None:
        remote = self.popen(command, stdin=stdin or subprocess.DEVNULL, stdout=stdout)
        for pipe in (stdin, stdout):
            if pipe:
                pipe.close()  # theirs alone now
        try:
            codes = (remote.wait(seconds), local.wait(seconds))
        finally:
            remote.kill()
            local.kill()
        if codes != (0, 0):
            raise CommandFailed(codes[0] or codes[1], command, "", "")

    def _note(self, what: str) -> None:
        self.notes.append(f"{self.name} {what}")
        print(f"bed: {self.notes[-1]}", file=sys.stderr, flush=True)


class CommandFailed(subprocess.CalledProcessError):
    """A CalledProcessError that shows what the command said."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout or ''}\n{self.stderr or ''}"


def make_state_disk(path: Path, file_system: str, size_gib: int) -> None:
    """A fresh sparse file with an empty XFS (reflink on), btrfs or ext4 on it."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(size_gib << 30)
    if file_system == "xfs":
        run_tool(["mkfs.xfs", "-q", "-K", "-m", "reflink=1", str(path)])
    elif file_system == "btrfs":
        run_tool(["mkfs.btrfs", "-q", "--nodiscard", str(path)])
    elif file_system == "ext4":
        run_tool(["mke2fs", "-q", "-t", "ext4", str(path)])
    else:
        raise ValueError(f"state_fs is xfs, btrfs or ext4, not {file_system!r}")


if __name__ == "__main__":
    from bed.node_cli import main

    sys.exit(main())
