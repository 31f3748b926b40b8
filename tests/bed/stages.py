"""What `make demo` and `make test` are made of: steps with a name, a time and a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Callable, Iterator, Mapping, Sequence


ROOT = Path(__file__).resolve().parents[2]
# One clone's objects serve the next: paths below the checkout count as relative.
COMPILER_CACHE = {"CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}


class StageError(RuntimeError):
    """A step failed; the message says what a person needs to know."""


class Stages:
    """Prints each step with its time as it ends, and remembers all. Thread-safe."""

    def __init__(self, out: IO[str] = sys.stdout) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self._end(name, began, "failed")
            raise
        self._end(name, began, "")

    def _end(self, name: str, began: float, how: str) -> None:
        took = time.monotonic() - began
        with self._lock:
            self.times.append((name, took))
            print(f"{took:8.1f} s  {name}{f'  ({how})' if how else ''}", file=self._out, flush=True)

    def total(self) -> float:
        return time.monotonic() - self._began


class Running:
    """Child processes, each the leader of its own session, so that none outlives us: `end_all`
    kills whatever is left. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen] = {}
        self._ending = False

    def run(
        self,
        command: Sequence[str],
        *,
        seconds: float,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """The exit code; -SIGKILL when it took longer than `seconds`. Output goes to `log`, or to
        ours.
        """
        with open(log, "ab") if log else open(os.dup(1), "ab") as out:
            with self._lock:
                if self._ending:
                    raise StageError("ended by the user")
                process = subprocess.Popen(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**COMPILER_CACHE, **os.environ, **(env or {})},
                    start_new_session=True,
                )
                self._processes[process.pid] = process
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            # A moment to clean up first: pytest ends its fixtures on SIGINT.
            kill_session(process, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            return -signal.SIGKILL
        finally:
            kill_session(process, signal.SIGKILL)
            process.wait()
            with self._lock:
                self._processes.pop(process.pid, None)

    def end_all(self) -> None:
        with self._lock:
            self._ending = True
            processes = list(self._processes.values())
        for process in processes:
            kill_session(process, signal.SIGINT)
        deadline = time.monotonic() + 20
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                pass
            kill_session(process, signal.SIGKILL)


def kill_session(process: subprocess.Popen, number: int) -> None:
    """To the process group that it leads. Processes that made a session of their own die with their
    owners.
    """
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


class Background:
    """A call on a thread of its own; `result` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._value: object = None
        self._error: BaseException | None = None

        def body() -> None:
            try:
                self._value = work()
            except BaseException as error:  # shown to whoever asks for the result
                self._error = error

        self._thread = threading.Thread(target=body)
        self._thread.start()

    def result(self):
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
