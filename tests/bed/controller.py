"""The controller as the chart's Deployment runs it, but as a process of the host."""

from __future__ import annotations

import socket
from pathlib import Path

from bed.chart import NAMESPACE
from bed.control_plane import ControlPlane
from bed.daemons import Daemon
from bed.eventually import eventually
from bed.product import program


class Controller:
    """With its own service account's token. Not thread-safe."""

    def __init__(self, api: ControlPlane, folder: Path, leader_elect: bool = True) -> None:
        """leader_elect=False: it outlives an API server that is away for longer than a lease."""
        self._api = api
        self._leader_elect = leader_elect
        self._kubeconfig = folder / "controller.kubeconfig"
        self._daemon = Daemon("dormouse-controller", folder)
        self._die_with_parent = True
        self.health_port = self.metrics_port = 0

    def start(self, *, die_with_parent: bool | None = None) -> None:
        """Returns when it is ready. It works once it holds the lease, which a killed one kept for
        15 s.
        """
        if die_with_parent is not None:
            self._die_with_parent = die_with_parent
        self._api.controller_kubeconfig(self._kubeconfig)
        self.health_port, self.metrics_port = _free_port(), _free_port()
        command = [
            str(program("dormouse-controller")), f"--kubeconfig={self._kubeconfig}",
            "--leader-elect" if self._leader_elect else "--no-leader-elect", f"--lease-namespace={NAMESPACE}",
            f"--health-address=127.0.0.1:{self.health_port}", f"--metrics-address=127.0.0.1:{self.metrics_port}",
            "--log-level=debug", "--log-format=text",
        ]  # fmt: skip
        self._daemon.start(command, die_with_parent=self._die_with_parent)
        eventually(self.listens, "the controller listens", 30, self.log_tail)

    def listens(self) -> bool:
        assert self._daemon.running(), "it ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.health_port)) == 0

    def kill(self) -> None:
        self._daemon.stop(grace_seconds=0)

    def stop(self) -> None:
        self._daemon.stop()

    def running(self) -> bool:
        return self._daemon.running()

    def pid(self) -> int | None:
        return self._daemon.pid()

    def log_tail(self, lines: int = 40) -> str:
        return self._daemon.log_tail(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
