"""Where things are on a node, as the agent and the tests name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The defaults are a QEMU node's (bed.node), which are a real node's."""

    parts: str = "/opt/dormouse"
    state: str = "/var/lib/dormouse"
    run: str = "/run/dormouse"
    slice: str = "dormouse.slice"
    kubeconfig: str = "/etc/dormouse/kubeconfig"
    log: str = "/var/log/dormouse-agent.log"
    api_host: str = "10.0.2.2"  # the host's loopback, to a machine of QEMU's user-mode network
    node_ip: str = "10.0.2.15"  # what that network gives to every machine
    host_namespaces: str = "/proc/1/ns"
    on_loopback: bool = False  # where the agent's own servers listen

    @property
    def images(self) -> str:
        return f"{self.state}/images"

    @property
    def socket(self) -> str:
        return f"{self.run}/agent.sock"
