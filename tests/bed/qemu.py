"""One QEMU machine: its command line, its process, its console. What runs inside is bed.node's
business.

Emulated (TCG) unless told otherwise; the CPU model "max" has SVM there, so KVM works inside.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

KEEPER = Path(__file__).parent / "keeper.py"
# 5-level page tables only make every walk longer in emulation.
CPU = {"tcg": "max,la57=off", "kvm": "host"}
# thread=single was seen to hang with nested guests.
ACCELERATOR = {"tcg": "tcg,thread=multi", "kvm": "kvm"}
# On a busy host the emulated timers are late: the kernel's own checks of them would panic, or distrust the clock.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on net.ifnames=0"
    " no_timer_check tsc=reliable"
)
# Emulated, programs are cheaper at the same addresses each time: with others a burst of clones took a quarter longer.
ACCELERATOR_ARGUMENTS = {"tcg": "norandmaps", "kvm": ""}


class MachineError(RuntimeError):
    """The machine did not start, or ended, or does not answer; the message ends with its console's
    last lines.
    """


@dataclass(frozen=True)
class Disk:
    path: Path
    read_only: bool = False
    scratch: bool = False  # what is written is forgotten when the machine ends
    cache: str = "unsafe"  # or "writeback", where fsync is to cost what it costs

    def option(self) -> str:
        flags = ",readonly=on" if self.read_only else ",snapshot=on" if self.scratch else ""
        return f"file={self.path},if=virtio,format=raw,cache={self.cache},discard=unmap{flags}"


@dataclass
class Machine:
    """Ports in `forwards` are of the machine; start() maps each to a free one on the host's
    loopback.
    """

    kernel: Path
    initramfs: Path
    disks: list[Disk]
    console: Path  # appended to
    memory_mib: int = 3072
    cpus: int = 2
    accelerator: str = "tcg"
    life_seconds: float = 3600.0
    kernel_arguments: str = ""
    forwards: tuple[int, ...] = ()
    ports: dict[int, int] = field(default_factory=dict)
    _keeper: subprocess.Popen | None = None
    _console_start: int = 0
    _owner_pipe: int | None = None

    def start(self, outlives_us: bool = False) -> None:
        """Returns when QEMU runs; nothing is said of what is inside. `outlives_us`: until stopped
        by its pid.
        """
        self.ports = {port: self.ports.get(port) or _free_port() for port in self.forwards}
        self.console.touch()
        self._console_start = self.console.stat().st_size
        keeper = [sys.executable, "-S", str(KEEPER), f"--seconds={self.life_seconds}"]
        owner_end = None
        if not outlives_us:
            owner_end, self._owner_pipe = os.pipe()
            keeper.append(f"--owner-fd={owner_end}")
        with open(self.console.with_suffix(".qemu.log"), "ab") as log:
            self._keeper = subprocess.Popen(
                [*keeper, "--", *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=() if owner_end is None else (owner_end,),
            )
        if owner_end is not None:
            os.close(owner_end)

    def _command(self) -> list[str]:
        network = "user,id=net0" + "".join(
            f",hostfwd=tcp:127.0.0.1:{host}-:{port}" for port, host in self.ports.items()
        )
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", ACCELERATOR[self.accelerator], "-cpu", CPU[self.accelerator],
            "-smp", str(self.cpus), "-m", str(self.memory_mib),
            "-kernel", str(self.kernel), "-initrd", str(self.initramfs),
            "-append", " ".join((KERNEL_ARGUMENTS, ACCELERATOR_ARGUMENTS[self.accelerator], self.kernel_arguments)),
            "-chardev", f"file,id=console,path={self.console},append=on",
            "-serial", "chardev:console",
            "-netdev", network, "-device", "virtio-net-pci,netdev=net0,romfile=",
        ]
        for disk in self.disks:
            command += ["-drive", disk.option()]
        return command

    @property
    def pid(self) -> int | None:
        """The leader of the machine's process group."""
        return self._keeper.pid if self._keeper else None

    def running(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    def kill(self) -> None:
        """SIGKILL: to the machine, its power is cut. Returns when the process is gone."""
        if self._keeper is None:
            return
        kill_group(self._keeper.pid)
        self._keeper.wait()
        self._keeper = None
        if self._owner_pipe is not None:
            os.close(self._owner_pipe)
            self._owner_pipe = None

    def console_text(self) -> str:
        """What this run of the machine has printed."""
        with open(self.console, "rb") as file:
            file.seek(self._console_start)
            return file.read().decode(errors="replace")

    def wait_for(self, text: str, seconds: float) -> None:
        """Until the console shows `text`. MachineError if the machine ends first, or time is up."""
        limit = time.monotonic() + seconds
        while text not in self.console_text():
            if not self.running():
                raise self.error("ended while starting")
            if time.monotonic() > limit:
                raise self.error(f"did not print {text!r} within {seconds:.0f} s")
            time.sleep(0.05)  # QEMU appends to a file; there is nothing to wait on

    def error(self, what: str) -> MachineError:
        log = self.console.with_suffix(".qemu.log")
        said = log.read_text(errors="replace")[-1000:] if log.exists() else ""
        return MachineError(
            f"the machine {what}; its console ends:\n{self.console_text()[-2000:]}\n{said}"
        )


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
