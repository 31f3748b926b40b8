"""The Kubernetes programs that the tests and the demo run: kube-apiserver, kubectl, helm and their
kin.

Each is looked for, in this order:
  1. in $KUBEBUILDER_ASSETS (the convention of controller-runtime's envtest),
  2. on PATH, if it is new enough,
  3. in our cache, ${XDG_CACHE_HOME:-~/.cache}/dormouse/<tool>-<version>/<tool>,
  4. as the official download, checked against the sha256 that is published beside it,
  5. built from its Go modules into that cache (kube-apiserver: about 3 min on 2 cores).

    python3 -m bed.tools kube-apiserver kubectl helm     # finds or builds; prints one path a line
    python3 -m bed.tools --list                          # what is known, and where it is now

Safe to call from several processes at once: a lock file per tool serialises the work.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bed.cache import cache_dir

KUBERNETES_VERSION = "v1.36.3"
HELM_VERSION = "v3.21.4"
# What both modules ask for, and the toolchain that they are built with where the machine's own Go
# is older.
OLDEST_GO = (1, 26)
GO_VERSION = "1.26.8"

# The oldest API server with field selectors on custom resources switched on by default.
OLDEST_KUBERNETES = (1, 31)
OLDEST_HELM = (3, 14)

DOWNLOAD_CONNECT_SECONDS = 5
BUILD_TIMEOUT_SECONDS = 30 * 60

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class ToolError(RuntimeError):
    """A tool could be neither found nor made; the message says what was tried."""


@dataclass(frozen=True)
class Tool:
    """One program: its name, version and where its parts come from."""

    name: str
    version: str
    package: str  # the Go package that holds its main()
    oldest: tuple[int, int]
    version_args: tuple[str, ...]

    @property
    def cached(self) -> Path:
        return cache_dir() / f"{self.name}-{self.version}" / self.name


def _kubernetes(name: str, version_args: tuple[str, ...] = ("--version",)) -> Tool:
    return Tool(
        name, KUBERNETES_VERSION, f"k8s.io/kubernetes/cmd/{name}", OLDEST_KUBERNETES, version_args
    )


TOOLS = {
    tool.name: tool
    for tool in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kubectl", ("version", "--client")),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Tool("helm", HELM_VERSION, "helm.sh/helm/v3/cmd/helm", OLDEST_HELM, ("version", "--short")),
    )
}


def find(name: str) -> Path:
    """The path of a runnable `name`, made if need be. Raises ToolError."""
    tool = TOOLS.get(name)
    if tool is None:
        raise ToolError(f"unknown tool {name!r}: one of {', '.join(TOOLS)}")
    present = _present(tool)
    if present:
        return present
    with _lock(tool):
        if tool.cached.exists():  # another process made it while we waited
            return tool.cached
        _say(f"{tool.name} {tool.version} is not on this machine: fetching or building it once")
        return _download(tool) or _build(tool)


def _present(tool: Tool) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / tool.name, os.X_OK):
        return Path(assets) / tool.name
    on_path = shutil.which(tool.name)
    if on_path and _new_enough(tool, on_path):
        return Path(on_path)
    return tool.cached if os.access(tool.cached, os.X_OK) else None


def _new_enough(tool: Tool, path: str) -> bool:
    try:
        answer = subprocess.run(
            [path, *tool.version_args], capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"v(\d+)\.(\d+)\.", answer)
    if not version:
        return False
    major, minor = int(version[1]), int(version[2])
    # A later major (Helm 4) has other flags than the ones that we pass.
    return major == tool.oldest[0] and minor >= tool.oldest[1]


@contextmanager
def _lock(tool: Tool):
    tool.cached.parent.mkdir(parents=True, exist_ok=True)
    with open(tool.cached.parent / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(tool: Tool, built: Path) -> Path:
    """Puts a finished binary in the cache: a reader sees all of it, or nothing."""
    built.chmod(0o755)
    os.replace(built, tool.cached)
    return tool.cached


# --- the official download ------------------------------------------------------------------------


def _download(tool: Tool) -> Path | None:
    """The release binary, or None where it cannot be had (no internet, no build for this
    machine)."""
    if tool.name == "helm":
        url = f"https://get.helm.sh/helm-{tool.version}-linux-{ARCH}.tar.gz"
        digest_url = f"{url}.sha256sum"
    else:
        url = f"https://dl.k8s.io/release/{tool.version}/bin/linux/{ARCH}/{tool.name}"
        digest_url = f"{url}.sha256"
    try:
        expected = _fetch(digest_url).decode("ascii").split()[0]
        content = _fetch(url)
    except (OSError, urllib.error.URLError, UnicodeDecodeError, IndexError) as error:
        _say(f"no download of {tool.name}: {error}")
        return None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ToolError(f"{url}: sha256 is {found}, published is {expected}")
    with tempfile.TemporaryDirectory(dir=tool.cached.parent) as scratch:
        target = Path(scratch) / "download"
        target.write_bytes(content)
        if tool.name == "helm":
            with tarfile.open(target) as archive:
                member = archive.extractfile(f"linux-{ARCH}/helm")
                if member is None:
                    raise ToolError(f"{url} holds no helm")
                unpacked = Path(scratch) / "helm"
                unpacked.write_bytes(member.read())
                target = unpacked
        return _install(tool, target)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=DOWNLOAD_CONNECT_SECONDS) as answer:
        return answer.read()


# --- built from the Go modules --------------------------------------------------------------------


def _build(tool: Tool) -> Path:
    go = _go()
    with tempfile.TemporaryDirectory(dir=tool.cached.parent) as scratch:
        folder = Path(scratch)
        output = folder / tool.name
        module = (
            "k8s.io/kubernetes"
            if tool.package.startswith("k8s.io/")
            else tool.package.split("/cmd/")[0]
        )
        (folder / "go.mod").write_text(_go_mod(go, module, tool.version, folder), encoding="ascii")
        command = ["nice", "-n", "10", go, "build", "-mod=mod", "-trimpath", "-buildvcs=false"]
        command += ["-ldflags", _ldflags(tool), "-o", str(output), tool.package]
        _run(command, folder)
        return _install(tool, output)


def _go_mod(go: str, module: str, version: str, folder: Path) -> str:
    """A module of our own that requires `module` and repeats its replacements.

    k8s.io/kubernetes replaces each staging module by a folder of its repository; as published
    modules they have the same minor and patch version under v0.
    """
    answer = _run([go, "mod", "download", "-json", f"{module}@{version}"], folder, capture=True)
    published = Path(json.loads(answer)["GoMod"]).read_text(encoding="utf-8")
    go_line = re.search(r"^go (\S+)$", published, re.MULTILINE)
    lines = [
        "module dormouse.dev/tools",
        f"go {go_line[1] if go_line else '1.21'}",
        f"require {module} {version}",
    ]
    for staging in re.findall(r"(k8s\.io/\S+) => \./staging/src/", published):
        lines.append(f"replace {staging} => {staging} v0{version[2:]}")
    if module == "k8s.io/kubernetes" and len(lines) == 3:
        # Since workspaces hold the replacements, the published go.mod asks for v0.0.0 of each
        # staging module.
        for staging in re.findall(r"^\s*(k8s\.io/\S+) v0\.0\.0\b", published, re.MULTILINE):
            lines.append(f"replace {staging} => {staging} v0{version[2:]}")
    return "\n".join(lines) + "\n"


def _ldflags(tool: Tool) -> str:
    if tool.name == "helm":
        return f"-s -w -X helm.sh/helm/v3/internal/version.version={tool.version}"
    major, minor, _ = tool.version[1:].split(".")
    values = {
        "gitVersion": tool.version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    # Without these an API server calls itself v0.0.0-master, and clients refuse to speak to it.
    return "-s -w " + " ".join(
        f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items()
    )


def _go() -> str:
    """A Go command of at least OLDEST_GO: the machine's own, else GO_VERSION as a Go module."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go"]
    found = [path for path in candidates if path and os.access(path, os.X_OK)]
    for path in found:
        if _go_version(path) >= OLDEST_GO:
            return path
    if not found:
        _install_debian_go()
        path = shutil.which("go")
        if path is None:
            raise ToolError("no Go toolchain: install golang-go")
        found = [path]
    return _toolchain_module(found[0])


def _go_version(go: str) -> tuple[int, ...]:
    answer = subprocess.run(
        [go, "version"], capture_output=True, text=True, timeout=60, cwd="/", env=_go_environment()
    )
    match = re.search(r"go(\d+(?:\.\d+)+)", answer.stdout)
    return tuple(int(part) for part in match[1].split(".")) if match else (0,)


def _install_debian_go() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ToolError("no Go toolchain on this machine: as root, apt-get install golang-go")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-qy", "--no-install-recommends", "golang-go"],
    ):
        subprocess.run(
            command, check=True, env=environment, stdout=sys.stderr, timeout=BUILD_TIMEOUT_SECONDS
        )


def _toolchain_module(go: str) -> str:
    """GO_VERSION as the module golang.org/toolchain, which is how Go ≥ 1.21 fetches it for itself.

    Debian 12's Go is 1.19 and does not know GOTOOLCHAIN, but downloads (and verifies) the module
    like any other. What that Go leaves out is the execute bit of the programs.
    """
    home = cache_dir() / f"go-{GO_VERSION}"
    program = home / "bin" / "go"
    if program.exists():
        return str(program)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "go.mod").write_text("module dormouse.dev/tools\n", encoding="ascii")
        module = f"golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-{ARCH}"
        answer = _run([go, "mod", "download", "-json", module], Path(scratch), capture=True)
    unfinished = home.with_name(home.name + f".{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(json.loads(answer)["Dir"], unfinished)
    for folder in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for executable in (*(unfinished / "bin").iterdir(), *(unfinished / "pkg" / "tool").rglob("*")):
        if executable.is_file():
            executable.chmod(0o755)
    try:
        unfinished.rename(home)
    except OSError:  # another process was first
        shutil.rmtree(unfinished, ignore_errors=True)
    return str(program)


def _go_environment() -> dict[str, str]:
    environment = dict(os.environ, CGO_ENABLED="0", GOWORK="off", GOTOOLCHAIN="local", GOFLAGS="")
    environment.setdefault("HOME", str(Path.home()))
    environment.pop("GOROOT", None)  # would give one Go the library of another
    return environment


def _run(command: list[str], folder: Path, capture: bool = False) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=_go_environment(),
        stdout=subprocess.PIPE if capture else sys.stderr,
        stderr=None,
        text=True,
        timeout=BUILD_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise ToolError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout or ''}")
    return done.stdout or ""


def _say(text: str) -> None:
    print(f"tools: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"any of: {', '.join(TOOLS)}")
    parser.add_argument(
        "--list", action="store_true", help="where each tool is now; fetches and builds nothing"
    )
    options = parser.parse_args()
    if options.list:
        for tool in TOOLS.values():
            print(f"{tool.name:26}{_present(tool) or f'absent (would become {tool.cached})'}")
        return 0
    try:
        for name in options.tools:
            print(find(name), flush=True)
    except ToolError as error:
        print(f"tools: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
