"""The container images: what is in them, that it starts, and that two builds give one digest."""

from __future__ import annotations

import gzip
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bed import chart
from bed.guest_parts import guest_parts
from bed.product import ROOT, build_folder, choose_vmm

MAKER = ROOT / "deploy" / "images" / "make-images"
MIB = 1 << 20
PROGRAMS = {
    "controller": {"dormouse-controller"},
    "agent": {"dormouse-agent", "dormouse-launch", "cloud-hypervisor"},
}
IMAGES = sorted(PROGRAMS)
EPOCH = "1750000000"


def make(out: Path, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess:
    guest = guest_parts()
    command = [
        str(MAKER), f"--out={out}", f"--build={build_folder()}", f"--cloud-hypervisor={choose_vmm().binary}",
        f"--kernel={guest.kernel}", f"--modules-dir={guest.modules}", *arguments,
    ]  # fmt: skip
    environment = dict(os.environ, SOURCE_DATE_EPOCH=EPOCH)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, umask=umask, check=False
    )


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> list[Path]:
    """Two, side by side, of which the second is made with another umask."""
    folders = [tmp_path_factory.mktemp("images") / name for name in ("one", "other")]
    with ThreadPoolExecutor() as both:
        for done in both.map(lambda pair: make(pair[0], umask=pair[1]), zip(folders, (0o022, 0o077))):
            assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture(params=IMAGES)
def image(request) -> str:
    return request.param


@pytest.fixture
def made(builds, image) -> Path:
    return builds[0] / image


@pytest.fixture
def rootfs(made) -> Path:
    return made / "rootfs"


def archive(made: Path) -> Path:
    return made / f"dormouse-{made.name}.tar"


def manifest(made: Path) -> dict:
    layout = made / "layout"
    index = json.loads((layout / "index.json").read_text())
    return json.loads(blob(layout, index["manifests"][0]["digest"]))


def blob(layout: Path, digest: str) -> bytes:
    content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    return content


def files(rootfs: Path) -> list[Path]:
    return [path for path in sorted(rootfs.rglob("*")) if path.is_file() and not path.is_symlink()]


def elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def started(rootfs: Path, *command: str) -> subprocess.CompletedProcess:
    """`command` with the image's files, and no others."""
    as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    return subprocess.run(
        [*as_root, shutil.which("chroot") or "/usr/sbin/chroot", str(rootfs), *command],
        capture_output=True, text=True, timeout=30, check=False, env={"PATH": "/usr/bin"},
    )  # fmt: skip


def version() -> str:
    return re.search(r"project\(dormouse VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]


def test_two_builds_give_the_same_bytes(builds, image):
    one, other = (build / image for build in builds)
    assert archive(one).read_bytes() == archive(other).read_bytes()
    assert (one / "sbom.spdx.json").read_bytes() == (other / "sbom.spdx.json").read_bytes()


def test_it_is_small(made):
    compressed = sum(layer["size"] for layer in manifest(made)["layers"])
    assert compressed <= {"controller": 25 * MIB, "agent": 60 * MIB}[made.name]


def test_its_programs_start_from_it_alone(rootfs, image):
    said = started(rootfs, f"/usr/bin/dormouse-{image}", "--version")
    assert (said.returncode, said.stdout.strip()) == (0, version()), said.stderr
    if image == "agent":
        assert "v53." in started(rootfs, "/usr/bin/cloud-hypervisor", "--version").stdout
        # Without the pipe that the agent gives it, it does nothing; that it starts is what is asked.
        assert started(rootfs, "/usr/bin/dormouse-launch").returncode not in (126, 127)


def test_nothing_is_in_it_but_its_programs_and_what_they_link(rootfs, image):
    assert {path.name for path in (rootfs / "usr/bin").iterdir()} == PROGRAMS[image]
    needed, asked = set(), [path for path in (rootfs / "usr/bin").iterdir() if elf(path)]
    libraries = {path.name: path for path in files(rootfs) if elf(path) and path.parent.name != "bin"}
    while asked:
        listed = subprocess.run(["readelf", "-d", "-l", asked.pop()], capture_output=True, text=True, timeout=30).stdout
        names = re.findall(r"NEEDED.*\[(.*)\]", listed) + re.findall(r"interpreter: .*/([^/]*)\]", listed)
        asked += [libraries[name] for name in names if name not in needed]
        needed |= set(names)
    assert set(libraries) == needed
    others = {path.relative_to(rootfs).parts[:2] for path in files(rootfs) if not elf(path)}
    expected = {
        ("etc", "passwd"), ("etc", "group"), ("etc", "os-release"), ("etc", "ssl"), ("usr", "share"), ("var", "lib"),
    }  # fmt: skip
    assert others == expected | ({("usr", "lib")} if image == "agent" else set())
    if image == "agent":
        assert {path.name for path in (rootfs / "usr/lib/dormouse").iterdir()} == {"vmlinuz", "initramfs"}


def test_nothing_in_it_gives_rights_or_a_shell(made):
    for layer in manifest(made)["layers"]:
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        content = gzip.decompress(blob(made / "layout", layer["digest"]))
        unpacked = made / "layer.tar"
        unpacked.write_bytes(content)
        with tarfile.open(unpacked) as members:
            for member in members:
                assert (member.uid, member.gid, member.mtime) == (0, 0, 0), member.name
                assert member.isfile() or member.isdir() or member.issym(), member.name
                if not member.issym():
                    assert member.mode in (0o755, 0o644), member.name
                first = members.extractfile(member).read(2) if member.isfile() and member.mode & stat.S_IXUSR else b""
                assert first != b"#!", member.name


def test_its_configuration_is_what_the_chart_counts_on(made, image):
    config = json.loads(blob(made / "layout", manifest(made)["config"]["digest"]))
    assert config["config"]["Entrypoint"] == [f"/usr/bin/dormouse-{image}"]
    assert config["config"]["User"] == ("65532:65532" if image == "controller" else "0:0")
    assert config["config"]["Env"] == ["PATH=/usr/bin"]
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert config["created"] == labels["org.opencontainers.image.created"] == "2025-06-15T15:06:40Z"
    chart_file = (chart.CHART / "Chart.yaml").read_text()
    assert re.search(r"^appVersion: (\S+)$", chart_file, re.MULTILINE)[1] == version()
    assert re.search(r"^version: (\S+)$", chart_file, re.MULTILINE)[1] == version()
    assert f"image: dormouse/{image}:{version()}\n" in chart_file


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_every_tool_loads_the_archive(made, transport):
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"{transport}:{archive(made)}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["Entrypoint"] == [f"/usr/bin/dormouse-{made.name}"]
    with tarfile.open(archive(made)) as members:
        index = json.load(members.extractfile("index.json"))
        names = json.load(members.extractfile("manifest.json"))[0]["RepoTags"]
    assert names == [f"dormouse/{made.name}:{version()}"]  # docker load
    # ctr and kind, and so the kubelet: the whole name of what the chart's values call dormouse/agent.
    full_name = index["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert full_name == f"docker.io/dormouse/{made.name}:{version()}"


def test_the_bill_of_materials_is_whole(made, rootfs):
    bill = json.loads((made / "sbom.spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3"
    listed = {entry["fileName"]: entry["checksums"][0]["checksumValue"] for entry in bill["files"]}
    found = {f"./{path.relative_to(rootfs)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files(rootfs)}
    assert listed == found
    packages = {entry["name"]: entry for entry in bill["packages"]}
    assert len(packages) == len(bill["packages"])
    for path in (rootfs / "var/lib/dpkg/status.d").iterdir():
        assert f"Version: {packages[path.name]['versionInfo']}\n" in path.read_text()
    libraries = {"libc6", "libssl3", "libcpprest2.10"} if Path("/etc/debian_version").exists() else set()
    assert {name.removesuffix("t64") for name in packages} >= libraries | {"dormouse", "nlohmann-json3-dev"}
    if made.name == "agent":
        assert {"linux", "cloud-hypervisor", "libnftables1"} <= packages.keys()
    for name in packages.keys() - {f"dormouse-{made.name}"}:
        assert (rootfs / "usr/share/doc" / name / "copyright").stat().st_size > 0
    related = {entry["relatedSpdxElement"] for entry in bill["relationships"]}
    related |= {entry["spdxElementId"] for entry in bill["relationships"]}
    assert related >= {entry["SPDXID"] for entry in bill["packages"] + bill["files"]}


def test_the_licences_that_notices_refer_to_are_there(rootfs):
    text = "".join(path.read_text() for path in (rootfs / "usr/share/doc").rglob("copyright"))
    for name in set(re.findall(r"/usr/share/common-licenses/((?:GPL|LGPL|Apache)-[0-9]\.?[0-9]?)\b", text)):
        assert (rootfs / "usr/share/common-licenses" / name).is_file(), name


def test_the_guests_initramfs_has_the_agent_and_modules(builds):
    initramfs = (builds[0] / "agent/rootfs/usr/lib/dormouse/initramfs").read_bytes()
    assert (build_folder() / "bin/dormouse-guest").read_bytes() in initramfs
    assert b"modules/virtio_blk.ko" in initramfs


def test_a_kernel_without_its_modules_is_refused(tmp_path):
    done = make(tmp_path, "--modules-dir=", "agent")
    assert done.returncode == 1
    assert "--kernel and --modules-dir belong together" in done.stderr


def test_a_build_that_does_not_know_what_it_was_made_from_is_refused(tmp_path):
    """Its licences would be missing."""
    (tmp_path / "build").mkdir()
    for name in ("bin", "build.ninja", "CMakeFiles"):
        (tmp_path / "build" / name).symlink_to(build_folder() / name)
    done = make(tmp_path / "out", f"--build={tmp_path}/build", "controller")
    assert done.returncode == 1
    assert "ninja has forgotten what" in done.stderr


def test_a_download_with_another_digest_is_refused_and_not_kept(tmp_path, monkeypatch):
    loader = importlib.machinery.SourceFileLoader("make_images", str(MAKER))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_images", loader))
    monkeypatch.setattr(sys, "path", list(sys.path))
    loader.exec_module(module)
    release = tmp_path / f"releases/v{module.CLOUD_HYPERVISOR}/cloud-hypervisor-static"
    release.parent.mkdir(parents=True)
    release.write_bytes(b"not what was published")
    monkeypatch.setattr(module, "RELEASES", f"file://{tmp_path}/releases")

    def download(digest: str) -> Path:
        options = {"build": build_folder(), "out": tmp_path / "out", "cloud_hypervisor_sha256": digest}
        return module.Maker(type("Options", (), options))._find_vmm()

    with pytest.raises(module.BuildError, match="sha256 is"):
        download("0" * 64)
    assert not (tmp_path / "out").exists()
    right = hashlib.sha256(release.read_bytes()).hexdigest()
    assert download(right).read_bytes() == b"not what was published"
