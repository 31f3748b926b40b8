"""Commands in the node over one ssh connection: the handshake, slow in emulation, is paid once."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Sequence

Command = str | Sequence[str]  # a line for the node's shell, or an argument vector


class Ssh:
    def __init__(self, port: int, key: Path) -> None:
        self._port = port
        # The path of a unix socket is short (108 bytes): not in the state folder, which may be
        # deep.
        self.folder = Path(tempfile.mkdtemp(prefix="dormouse-ssh-"))
        self._key = self.folder / "key"  # ssh wants it readable by its user alone
        shutil.copyfile(key, self._key)
        self._key.chmod(0o600)

    def options(self) -> list[str]:
        settings = (
            "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
            "BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=20", "ServerAliveCountMax=6",
        )
        return [
            "-q", "-F", "/dev/null", "-p", str(self._port), "-i", str(self._key),
            "-S", str(self.folder / "mux"), *(f"-o{setting}" for setting in settings),
        ]

    def connect(self, seconds: float) -> None:
        """Makes the connection that all later commands share. It stays in the background until the
        machine ends.
        """
        command = ["ssh", *self.options(), "-M", "-N", "-f", "root@127.0.0.1"]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, timeout=seconds, stdin=quiet, stdout=quiet, stderr=quiet)

    def arguments(self, command: Command, *more: str) -> list[str]:
        """The argument vector of an ssh that runs `command`, with our further `more` options of
        ssh.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        return ["ssh", *self.options(), *more, "root@127.0.0.1", line]

    def write_exec_script(self, target: Path) -> None:
        """A program that runs its arguments as root on the node: stdin, terminal and exit code are
        the command's.
        """
        options = shlex.join(self.options())
        target.write_text(
            "#!/bin/bash\n"
            "# Runs its arguments as root on the Dormouse test node.\n"
            f'[[ $# -gt 0 ]] || {{ echo "usage: $0 COMMAND [ARGUMENT]..." >&2; exit 2; }}\n'
            "[[ -t 0 && -t 1 ]] && terminal=-t || terminal=-T\n"
            f'exec ssh {options} "$terminal" root@127.0.0.1 "$(printf \'%q \' "$@")"\n'
        )
        target.chmod(0o755)

    def close(self) -> None:
        command = ["ssh", *self.options(), "-O", "exit", "root@127.0.0.1"]
        quiet = subprocess.DEVNULL
        subprocess.run(command, timeout=20, stdin=quiet, stdout=quiet, stderr=quiet)
        shutil.rmtree(self.folder, ignore_errors=True)
