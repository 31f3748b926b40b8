"""Keeps one process from outliving its time or its owner.

    python3 keeper.py --seconds N [--owner-fd FD] -- COMMAND...

The command is killed after N seconds, and when the other end of the pipe FD closes, as it does
however the owner ends. The keeper and the command are one session: killing the keeper's process
group ends both.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--owner-fd", type=int)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    # The kernel ends the command if the keeper itself is killed.
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *arguments.command], stdin=subprocess.DEVNULL
    )
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    ended = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    if arguments.owner_fd is not None:
        poll.register(arguments.owner_fd, select.POLLIN)
    if not poll.poll(arguments.seconds * 1000):
        print(
            f"keeper: {arguments.command[0]} had its {arguments.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    child.kill()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
