"""`make release`: what a user downloads, from a clean tree only."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from test_images import EPOCH, version

from bed import chart
from bed.guest_parts import guest_parts
from bed.product import ROOT, build_folder, choose_vmm

GIT_IDENTITY = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(tree), *arguments], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, **GIT_IDENTITY},
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """These sources as a clean checkout of their own."""
    folder = tmp_path_factory.mktemp("release") / "dormouse"
    for name in git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    git(folder, "init", "-q")
    commit(folder)
    return folder


def commit(tree: Path) -> None:
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "all")


def release(tree: Path) -> subprocess.CompletedProcess:
    guest = guest_parts()
    command = [
        str(tree / "scripts/release"), f"--build={build_folder()}", f"--cloud-hypervisor={choose_vmm().binary}",
        f"--kernel={guest.kernel}", f"--modules-dir={guest.modules}",
    ]  # fmt: skip
    environment = dict(os.environ, SOURCE_DATE_EPOCH=EPOCH)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.fixture(scope="module")
def artifacts(tree) -> Path:
    done = release(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "build/release-artifacts"


@pytest.fixture
def script(tree):
    loader = importlib.machinery.SourceFileLoader("release_script", str(tree / "scripts/release"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("release_script", loader))
    loader.exec_module(module)
    return module


def test_all_that_is_promised_is_there_and_has_the_version(artifacts):
    v = version()
    assert {path.name for path in artifacts.iterdir()} == {
        f"dormouse-{v}.tgz", f"dormouse-crds-{v}.yaml", f"kubectl-dormouse-{v}-linux-amd64.tar.gz", "SHA256SUMS",
        f"dormouse-controller-{v}.tar", f"dormouse-controller-{v}.spdx.json",
        f"dormouse-agent-{v}.tar", f"dormouse-agent-{v}.spdx.json",
    }  # fmt: skip


def test_the_sums_are_right_and_cover_everything(artifacts):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=artifacts, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout
    listed = re.findall(r"^[0-9a-f]{64}  (\S+)$", (artifacts / "SHA256SUMS").read_text(), re.MULTILINE)
    assert sorted([*listed, "SHA256SUMS"]) == sorted(path.name for path in artifacts.iterdir())


def test_the_packaged_chart_installs_the_same_as_the_folder(artifacts):
    arguments = ("template", chart.RELEASE, "--kube-version=v1.36.3", f"--namespace={chart.NAMESPACE}")
    packaged = chart.helm(*arguments, str(artifacts / f"dormouse-{version()}.tgz"))
    assert packaged == chart.helm(*arguments, str(chart.CHART))
    assert packaged.count("kind: CustomResourceDefinition") == 3
    for name in ("controller", "agent"):
        assert f"image: dormouse/{name}:{version()}\n" in packaged


def test_the_images_are_named_as_the_chart_asks_for_them(artifacts):
    for name in ("controller", "agent"):
        with tarfile.open(artifacts / f"dormouse-{name}-{version()}.tar") as members:
            assert f"dormouse/{name}:{version()}".encode() in members.extractfile("manifest.json").read()


def test_the_plugin_runs_and_brings_its_licence(artifacts, tmp_path):
    with tarfile.open(artifacts / f"kubectl-dormouse-{version()}-linux-amd64.tar.gz") as members:
        assert sorted(members.getnames()) == ["LICENSE", "kubectl-dormouse"]
        members.extractall(tmp_path)
    said = subprocess.run([tmp_path / "kubectl-dormouse", "--version"], capture_output=True, text=True, timeout=30)
    assert version() in said.stdout


def test_chart_and_plugin_have_the_same_bytes_each_time(artifacts, script, tmp_path):
    script.package_chart(version(), tmp_path)
    script.package_plugin(version(), build_folder(), tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (artifacts / path.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("deploy/helm/dormouse/Chart.yaml", f"appVersion: {version()}", "appVersion: 9.9.9", "appVersion is 9.9.9"),
        ("deploy/helm/dormouse/Chart.yaml", f"\nversion: {version()}", "\nversion: 9.9.9", "version is 9.9.9"),
        ("CHANGELOG.md", f"## {version()}", "## 9.9.9", f"CHANGELOG.md has nothing of {version()}"),
    ],
)
def test_a_tree_that_disagrees_with_itself_is_not_released(tree, artifacts, name, old, new, complaint):
    before = (tree / name).read_text()
    assert old in before
    (tree / name).write_text(before.replace(old, new))
    try:
        refused = release(tree)
        assert refused.returncode == 1 and "the tree is not clean" in refused.stderr and name in refused.stderr
        commit(tree)
        refused = release(tree)
        assert refused.returncode == 1 and complaint in refused.stderr
    finally:
        (tree / name).write_text(before)
        commit(tree)
