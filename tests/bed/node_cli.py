"""The node by hand, and for `make demo`: a machine that stays when the command that started it
ends.

    python3 -m bed.node --state-dir DIR up [--part bin/x=build/x]...     prints the NODE_EXEC line
    python3 -m bed.node --state-dir DIR exec -- COMMAND [ARGUMENT]...
    python3 -m bed.node --state-dir DIR down

`up` leaves DIR/node-exec, a program that runs its arguments as root on the node, and
DIR/machine.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from bed.qemu import kill_group
from bed.node import Node


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bed.node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state-dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the machine; replaces one that runs")
    up.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="PLACE=PATH",
        help="a file or folder for /opt/dormouse/PLACE",
    )
    up.add_argument(
        "--forward",
        action="append",
        default=[],
        type=int,
        metavar="PORT",
        help="a TCP port of the node to reach from the host",
    )
    up.add_argument("--module", action="append", default=[], help="a kernel module to load")
    up.add_argument("--name", default="node-a")
    up.add_argument("--memory-mib", type=int, default=3072)
    up.add_argument("--state-fs", choices=("xfs", "btrfs", "ext4"), default="xfs")
    up.add_argument("--hours", type=float, default=12.0, help="it ends by itself after this long")
    execute = commands.add_parser("exec", help="run a command as root on the node")
    execute.add_argument("argv", nargs="+", metavar="COMMAND")
    commands.add_parser("down", help="end the machine and remove DIR's files of it")
    arguments = parser.parse_args()
    folder = arguments.state_dir.absolute()
    if arguments.command == "up":
        return _up(folder, arguments)
    if arguments.command == "exec":
        return _exec(folder, arguments.argv)
    return down(folder)


def _up(folder: Path, arguments: argparse.Namespace) -> int:
    down(folder)
    parts = dict(part.split("=", 1) for part in arguments.part)
    node = Node(
        folder,
        parts={place: Path(path) for place, path in parts.items()},
        name=arguments.name,
        state_fs=arguments.state_fs,
        memory_mib=arguments.memory_mib,
        modules=arguments.module,
        forwards=arguments.forward,
        life_seconds=arguments.hours * 3600,
    )
    leave_running(node)
    print(f"NODE_EXEC={folder / 'node-exec'}")
    return 0


def leave_running(node: Node) -> None:
    """Starts a node that outlives this process, and writes what `exec` and `down` need into its
    folder.
    """
    node.start(outlives_us=True)
    assert node.ssh is not None and node.machine.pid is not None
    node.ssh.write_exec_script(node.folder / "node-exec")
    (node.folder / "machine.json").write_text(
        json.dumps(
            {
                "pid": node.machine.pid,
                "started": _start_time(node.machine.pid),
                "ssh": str(node.ssh.folder),
                "ports": node.machine.ports,
                "boot_seconds": round(node.boot_seconds, 2),
            },
            indent=1,
        )
        + "\n"
    )


def _exec(folder: Path, argv: list[str]) -> int:
    script = folder / "node-exec"
    if not script.exists():
        print(f"bed.node: no machine in {folder}", file=sys.stderr)
        return 1
    os.execv(script, [str(script), *argv])


def down(folder: Path) -> int:
    """Ends the machine that `up` left in `folder`, if it still runs, and removes its disks; the
    console's log stays.
    """
    try:
        machine = json.loads((folder / "machine.json").read_text())
    except FileNotFoundError:
        return 0
    # The pid may be someone else's by now: its start time tells.
    if _start_time(machine["pid"]) == machine["started"]:
        kill_group(machine["pid"])
        while _start_time(machine["pid"]) == machine["started"]:
            time.sleep(0.02)
    shutil.rmtree(machine["ssh"], ignore_errors=True)  # its connection ended with the machine
    for name in ("machine.json", "node-exec", "state.img", "parts.img"):
        (folder / name).unlink(missing_ok=True)
    return 0


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when there is no such process, or it is a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
