"""The agent's own cost, at the speed of the host: the product's controller and agent against a real API server,
with the fake VMM, and with device-mapper stood in for where the host's kernel has none (tests/fakes/agent_main.cc).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from bed.control_plane import ControlPlane
from bed.controller import Controller
from bed.daemons import Daemon
from bed.eventually import eventually
from bed.guest_parts import guest_parts
from bed.manifests import SANDBOXES, object_path, sandbox
from bed.product import choose_vmm, make_guest_initramfs, program
from bench.figures import Figure, median, percentile
from bench.starts import Creator, Watch
from bench.steps import start_of

NODE = "node-a"
SINGLE, AT_ONCE = 60, 100
SETTLE_SECONDS = 45
RUN = Path("/run/dormouse-bench")  # short: a unix socket's path has 108 bytes


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api = ControlPlane(folder / "control-plane")
        self.controller = Controller(self.api, folder)
        self.agent = Daemon("dormouse-agent", folder)
        self.disk = ""

    def __enter__(self) -> "Bench":
        try:
            self.api.start()
            self.api.install_dormouse()
            self.controller.start()
            self.start_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.stop(grace_seconds=5)
        for group in cgroup_root().glob("dormouse-bench.slice/*/cgroup.kill"):
            group.write_text("1")
        self.controller.stop()
        self.api.stop()
        if self.disk:
            subprocess.run(["losetup", "-d", self.disk], check=False)
        subprocess.run(f"umount {RUN}/netns/* {RUN}/vm/* 2>/dev/null; rm -rf {RUN}", shell=True, check=False)

    def start_agent(self) -> None:
        images = self.folder / "state" / "images"
        images.mkdir(parents=True)
        parts = guest_parts()
        shutil.copy(parts.busybox_image, images / "busybox.img")
        scratch = self.folder / "disk"
        scratch.write_bytes(b"")
        os.truncate(scratch, 64 << 20)
        self.disk = subprocess.run(
            ["losetup", "-f", "--show", scratch], capture_output=True, text=True, check=True
        ).stdout.strip()
        number = os.stat(self.disk).st_rdev
        kubeconfig = self.api.agent_kubeconfig(NODE, self.folder / "agent.kubeconfig", server=self.api.url)
        initramfs = make_guest_initramfs(parts, self.folder / "initramfs")
        command = [
            str(program("dormouse-agent-fake-block")), f"--kubeconfig={kubeconfig}", f"--node-name={NODE}",
            f"--state-dir={self.folder}/state", f"--run-dir={RUN}", f"--images-dir={images}",
            f"--vmm={choose_vmm('fake').binary}", f"--launcher={program('dormouse-launch')}",
            f"--kernel={parts.kernel}", f"--initramfs={initramfs or self.folder / 'initramfs'}",
            "--host-namespaces=self", f"--cgroup-mount={cgroup_root()}", "--cgroup-slice=dormouse-bench.slice",
            "--health-address=127.0.0.1:8083", "--metrics-address=127.0.0.1:8084", "--cpu-overcommit=64",
            "--log-level=debug", "--log-format=text", "--disk-window-mib=4", "--disk-reserve-mib=256",
        ]  # fmt: skip
        RUN.mkdir(exist_ok=True)
        self.agent.start(
            command,
            die_with_parent=True,
            env={**os.environ, "DORMOUSE_FAKE_DISK": f"{os.major(number)}:{os.minor(number)}",
                 "SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/nonexistent"},
        )  # fmt: skip
        path = object_path("sandboxnodes", NODE)

        def offers() -> bool:
            answer = self.api.admin.get(path)
            return answer.ok and bool(answer.body.get("status", {}).get("images"))

        eventually(offers, "the node offers its image", 60, self.agent_log)

    def agent_log(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def log(self) -> str:
        return (self.folder / "dormouse-agent.log").read_text(errors="replace")

    def delete(self, *names: str) -> None:
        for name in names:
            self.api.admin.delete(object_path(SANDBOXES, name))

        def gone() -> bool:
            return not self.api.admin.get(object_path(SANDBOXES)).body["items"]

        eventually(gone, "deleted", 180, self.agent_log)


def cgroup_root() -> Path:
    unified = Path("/sys/fs/cgroup/unified")
    return unified if unified.is_dir() else Path("/sys/fs/cgroup")


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def settled(pid: int) -> float:
    """When it has given back what starting up, or a burst of work, needed: within half a minute."""
    least = resident_mib(pid)
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        time.sleep(1)
        least = min(least, resident_mib(pid))
    return least


def measure(bench: Bench) -> list[Figure]:
    idle_controller, idle_agent = settled(bench.controller.pid()), settled(bench.agent.pid())
    watch, creator = Watch(bench.api.admin), Creator(bench.api.admin)

    def create(*names: str) -> None:
        for name in names:
            creator.create(sandbox(name, resources={"cpu": 1, "memory": "64Mi"}, bootSnapshot="Never"))

    try:
        latencies, agent, outside = [], [], []
        for number in range(SINGLE + 3):
            name = f"one-{number}"
            began = time.monotonic()
            create(name)
            watch.wait_ready([name], 60)
            latency = (watch.ready[name] - began) * 1e3
            if number >= 3:  # the first ones warm up
                start = start_of(bench.log(), f"default/{name}")
                latencies.append(latency)
                agent.append(start.agent)
                outside.append(latency - start.agent - start.vmm - max(start.guest, 0.0) - start.configured)
            bench.delete(name)
        names = [f"many-{number}" for number in range(AT_ONCE)]
        began = time.monotonic()
        create(*names)
        asked = time.monotonic()
        watch.wait_ready(names, 300)
        every = max(watch.ready[name] for name in names)
        full_agent = settled(bench.agent.pid())
        bench.delete(*names)
    finally:
        creator.stop()
        watch.stop()
    return [
        Figure.of("fake VMM, host: the agent's own work", median(agent), "ms", "<= 10"),
        Figure.of("fake VMM, host: API overhead p50", percentile(outside, 50), "ms", "<= 50"),
        Figure.of("fake VMM, host: API overhead p99", percentile(outside, 99), "ms", "<= 150"),
        Figure.of("fake VMM, host: apply to Ready p50", percentile(latencies, 50), "ms"),
        Figure.of(f"fake VMM, host: {AT_ONCE} at once, all asked for", (asked - began) * 1e3, "ms"),
        Figure.of(f"fake VMM, host: {AT_ONCE} at once, all Ready", (every - began) * 1e3, "ms"),
        Figure.of("resident memory: controller, idle", idle_controller, "MiB", "<= 15"),
        Figure.of("resident memory: agent, idle", idle_agent, "MiB", "<= 20"),
        Figure.of(f"resident memory: agent, {AT_ONCE} VMs", full_agent, "MiB", f"<= {20 + AT_ONCE * 10 / 1024:.2f}"),
    ]


def run(folder: Path) -> list[Figure]:
    with Bench(folder) as bench:
        return measure(bench)
