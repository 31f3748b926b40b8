"""What a guest sends, and what of it arrives: a stream to a listener beside the node, and datagrams to the node
itself.
"""

from __future__ import annotations

import socket
import threading
import time

from bed.cluster import Cluster
from bed.eventually import eventually
from bed.manifests import SANDBOXES, object_path, sandbox

BEAT_SECONDS = 0.05
SILENT_SECONDS = 3.0
NODE_PORT = 7777
HEARD = "/tmp/heard-from-guests"


class Listener:
    """Takes connections on the loopback of this network namespace, which a guest reaches through the node as 10.0.2.2,
    and remembers when something came last."""

    def __init__(self) -> None:
        self.last = 0.0  # time.monotonic()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(4096):
                self.last = time.monotonic()

    def wait_heard(self, seconds: float = 60) -> None:
        """Until something comes that is sent from now on."""
        began = time.monotonic()
        eventually(lambda: self.last > began, "the guest's stream is heard", seconds)

    def wait_silent(self, seconds: float = 30) -> float:
        """Until nothing has come for a while; when the last came."""
        eventually(
            lambda: time.monotonic() - self.last > SILENT_SECONDS, "the guest's stream is silent", seconds
        )
        return self.last


def talker(name: str, cluster: Cluster, listener: Listener, egress: str, **spec) -> dict:
    """A sandbox that sends a byte to `listener` by one connection, and one to the node's own address, at each beat."""
    at = cluster.layout
    script = f"""
        while :; do
            exec 3<>/dev/tcp/{at.api_host}/{listener.port} && while echo x >&3; do
                printf x >/dev/udp/{at.node_ip}/{NODE_PORT}
                sleep {BEAT_SECONDS}
            done
            sleep 1
        done"""
    return sandbox(name, "debian-12", command=["bash", "-c", script], network={"egress": egress}, **spec)


def set_egress(cluster: Cluster, name: str, egress: str) -> None:
    patch = {"spec": {"network": {"egress": egress}}}
    cluster.api.expect(cluster.api.admin.merge(object_path(SANDBOXES, name), patch), f"{name}: {egress}")


def listen_on_node(cluster: Cluster) -> None:
    """What arrives at the node's own address is counted from now on, once it is known that it would be."""
    socat = f"socat -u UDP-RECV:{NODE_PORT} OPEN:{HEARD},append"
    cluster.node.run(f"pkill -x socat; : >{HEARD}; setsid {socat} </dev/null >/dev/null 2>&1 &")

    def counts() -> bool:
        cluster.node.run(["bash", "-c", f"printf x >/dev/udp/{cluster.layout.node_ip}/{NODE_PORT}"], check=False)
        return bool(cluster.node.read(HEARD))

    eventually(counts, "the node hears itself")
    cluster.node.run(f": >{HEARD}")


def heard_by_node(cluster: Cluster) -> int:
    return len(cluster.node.read(HEARD))


def wait_sent(cluster: Cluster, packets: int = 40) -> None:
    """Until guests have sent so many more, whatever became of them."""

    def sent() -> int:
        return sum(map(int, cluster.node.output("cat /sys/class/net/dmv*/statistics/rx_packets").split()))

    before = sent()
    eventually(lambda: sent() >= before + packets, "guests go on sending")


def flush_and_time(cluster: Cluster) -> float:
    """What any firewall's restart does; seconds until our table is there again."""
    back = "until nft list table inet dormouse >/dev/null 2>&1; do :; done"
    script = f"nft flush ruleset; date +%s.%N; {back}; date +%s.%N"
    flushed, returned = map(float, cluster.node.output(["timeout", "60", "bash", "-c", script], seconds=90).split())
    return returned - flushed
