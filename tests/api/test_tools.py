"""Where a tool is taken from, tried with stand-ins."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bed import tools


@pytest.fixture
def empty_machine(monkeypatch, tmp_path) -> Path:
    """Nothing on PATH, nothing in the cache; what is to be built is only counted."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def build(tool: tools.Tool) -> Path:
        return program(tool.cached, tool.version)

    monkeypatch.setattr(tools, "_build", build)
    monkeypatch.setattr(tools, "_fetch", lambda url: (_ for _ in ()).throw(OSError("no internet")))
    return tmp_path


def program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho Kubernetes {version}\n", encoding="ascii")
    path.chmod(0o755)
    return path


def test_the_assets_of_envtest_come_first(empty_machine, monkeypatch):
    program(empty_machine / "path" / "kube-apiserver", "v1.36.3")
    assets = program(empty_machine / "assets" / "kube-apiserver", "v1.33.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets.parent))
    assert tools.find("kube-apiserver") == assets


@pytest.mark.parametrize(
    ("name", "version", "taken"),
    [
        ("kube-apiserver", "v1.31.0", True),
        ("kube-apiserver", "v1.30.9", False),
        ("kubectl", "v1.20.2", False),
        ("helm", "v3.22.0+gabc", True),
        ("helm", "v4.0.1", False),
        ("helm", "no version", False),
    ],
)
def test_a_program_on_path_is_taken_if_it_is_new_enough(empty_machine, name, version, taken):
    on_path = program(empty_machine / "path" / name, version)
    assert (tools.find(name) == on_path) == taken


def test_what_was_built_is_kept_by_version(empty_machine, monkeypatch):
    built = tools.find("kube-apiserver")
    assert (
        built
        == empty_machine
        / "cache"
        / "dormouse"
        / f"kube-apiserver-{tools.KUBERNETES_VERSION}"
        / "kube-apiserver"
    )
    monkeypatch.setattr(tools, "_build", lambda tool: pytest.fail("built twice"))
    assert tools.find("kube-apiserver") == built


def test_a_download_counts_only_with_its_published_digest(empty_machine, monkeypatch):
    content = b"#!/bin/sh\n"
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(
        tools, "_fetch", lambda url: digest.encode() if url.endswith(".sha256") else content
    )
    assert tools.find("kubectl").read_bytes() == content
    monkeypatch.setattr(
        tools, "_fetch", lambda url: b"0" * 64 if url.endswith(".sha256") else content
    )
    with pytest.raises(tools.ToolError, match="sha256 is .*, published is 0000"):
        tools.find("kube-scheduler")


def test_an_unknown_tool_is_refused_by_name(empty_machine):
    with pytest.raises(tools.ToolError, match="unknown tool 'kubeadm'"):
        tools.find("kubeadm")
