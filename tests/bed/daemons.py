"""A process that is started once, can be found again by another process, and is ended by its pid.

The pid file holds the pid and the start time that the kernel counts for it, so that a pid which the
kernel gave to another process since is never signalled.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
_SANITIZER = re.compile(r"^.*(?:(?:Address|Thread|Leak)Sanitizer|: runtime error:)", re.MULTILINE)
_libc = ctypes.CDLL(None, use_errno=True)


class DaemonError(RuntimeError):
    """A process did not start or end as it should; the message holds the end of its log."""


class Daemon:
    """One named process with a log and a pid file in `folder`. Not thread-safe."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._child: subprocess.Popen | None = None

    def start(
        self, argv: list[str], *, die_with_parent: bool, env: dict[str, str] | None = None
    ) -> None:
        """Starts it unless it runs. `die_with_parent`: SIGKILL when the thread that called this
        ends."""
        if self.running():
            return

        def tie_to_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                preexec_fn=tie_to_parent if die_with_parent else None,
            )
        self._pid_file.write_text(
            f"{self._child.pid} {_start_time(self._child.pid)}\n", encoding="ascii"
        )

    def pid(self) -> int | None:
        """The pid, or None when it does not run."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        try:
            pid, started = self._pid_file.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return int(pid) if _start_time(int(pid)) == started else None

    def running(self) -> bool:
        return self.pid() is not None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when it does not run."""
        pid = self.pid()
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self.pid() == pid:  # still the same process, now that the handle holds it
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def stop(self, *, grace_seconds: float = 5) -> int | None:
        """Ends it: SIGTERM, and SIGKILL after the grace; with no grace SIGKILL at once. Returns
        when it is gone: its exit code (-N: signal N), or None where it is not a child of ours."""
        pid = self.pid()
        if pid is not None:
            handle = os.pidfd_open(pid)
            try:
                if grace_seconds > 0:
                    self.signal(signal.SIGTERM)
                if grace_seconds <= 0 or not _ended(handle, grace_seconds):
                    self.signal(signal.SIGKILL)
                    if not _ended(handle, 10):
                        raise DaemonError(f"{self.name} (pid {pid}) did not end after SIGKILL")
            finally:
                os.close(handle)
        code = None
        if self._child is not None:
            code = self._child.wait()
            self._child = None
        self._pid_file.unlink(missing_ok=True)
        return code

    def sanitizer_report(self) -> str:
        """The first report that a sanitizer wrote to the log, or "": whatever ended the process since."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        found = _SANITIZER.search(text)
        return text[found.start() :][:8000] if found else ""

    def log_tail(self, lines: int = 20) -> str:
        try:
            return "\n".join(
                self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            )
        except OSError:
            return "(no log)"


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)); None for a process that is gone or a zombie."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])
