"""An image from a root file system: an OCI image layout made by umoci, and one archive of it that every tool loads.

The same tree, configuration and time of creation give the same bytes: files are packed in order, and owned by root.
They all have one time, always the same: a layer whose files do not change is pulled once, whatever the release.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from rootfs import BuildError, run

TAR = ("--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX", "--mtime=@0", "--format=gnu")


@dataclass(frozen=True)
class Layer:
    """Some of a tree's places, and why they are one layer."""

    places: tuple[str, ...]
    comment: str


@dataclass(frozen=True)
class Image:
    name: str  # dormouse/agent
    tag: str
    archive: Path
    digest: str  # of the manifest: what a registry will call it
    compressed: int  # bytes of all layers
    layers: tuple[int, ...]


def make(
    name: str, tag: str, tree: Path, layers: tuple[Layer, ...], config: list[str], created: str, out: Path
) -> Image:
    """`config` are options of `umoci config`; `created` is RFC 3339. Leaves <out>/<name>.tar and the layout."""
    if not shutil.which("umoci"):
        raise BuildError("umoci is not on PATH: scripts/install-deps")
    layout = out / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    image = ["--image", f"{layout}:{tag}"]
    run(["umoci", "init", "--layout", str(layout)])
    run(["umoci", "new", *image])
    packed: set[str] = set()
    for layer in layers:
        _add_layer(image, tree, layer, packed, created, out)
    left = {place for place in _all_places(tree) if place not in packed}
    if left:
        raise BuildError(f"{name}: no layer has {', '.join(sorted(left)[:5])}")
    fixed = [f"--created={created}", "--architecture=amd64", "--os=linux", "--no-history"]
    run(["umoci", "config", *image, *fixed, *config])
    run(["umoci", "gc", "--layout", str(layout)])
    return _archive(name, tag, layout, out)


def _all_places(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}


def _add_layer(image: list[str], tree: Path, layer: Layer, packed: set[str], created: str, out: Path) -> None:
    """What is below the layer's places and in no layer yet, with the directories above it."""
    below = {
        place for place in _all_places(tree) - packed
        if any(place == start or place.startswith(f"{start}/") or start == "" for start in layer.places)
    }  # fmt: skip
    packed |= below
    folders = {str(folder) for place in below for folder in Path(place).parents} - {"."}
    names, archive = out / "names", out / "layer.tar"
    names.write_text("".join(f"{place}\n" for place in sorted(below | folders)), encoding="utf-8")
    run(["tar", *TAR, "--no-recursion", "-C", str(tree), "-cf", str(archive), "-T", str(names)])
    run(
        ["umoci", "raw", "add-layer", *image, f"--history.created={created}", f"--history.created_by={layer.comment}",
         str(archive)]
    )  # fmt: skip
    names.unlink()
    archive.unlink()


def _archive(name: str, tag: str, layout: Path, out: Path) -> Image:
    """A tar of the layout. `docker load` before 25 looks for manifest.json, containerd for the image's whole name."""
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    descriptor = index["manifests"][0]
    descriptor["annotations"]["io.containerd.image.name"] = f"docker.io/{name}:{tag}"
    (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")

    def blob(digest: str) -> str:
        return f"blobs/{digest.replace(':', '/')}"

    manifest = json.loads((layout / blob(descriptor["digest"])).read_text(encoding="utf-8"))
    docker = {
        "Config": blob(manifest["config"]["digest"]),
        "RepoTags": [f"{name}:{tag}"],
        "Layers": [blob(layer["digest"]) for layer in manifest["layers"]],
    }
    (layout / "manifest.json").write_text(json.dumps([docker]), encoding="utf-8")
    archive = out / f"{name.replace('/', '-')}.tar"
    run(
        ["tar", *TAR, "-C", str(layout), "-cf", str(archive),
         "oci-layout", "index.json", "manifest.json", "blobs"]
    )  # fmt: skip
    sizes = tuple(layer["size"] for layer in manifest["layers"])
    return Image(name, tag, archive, descriptor["digest"], sum(sizes), sizes)
