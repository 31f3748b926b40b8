"""Objects as the tests write them."""

from __future__ import annotations

from bed.chart import API_VERSION

SANDBOXES = "sandboxes"
TEMPLATES = "snapshottemplates"
PLURALS = {"Sandbox": SANDBOXES, "SnapshotTemplate": TEMPLATES}
NAMESPACE = "default"
SMALL = {"cpu": 1, "memory": "128Mi"}


def object_path(plural: str, name: str = "", subresource: str = "") -> str:
    namespace = "" if plural == "sandboxnodes" else f"/namespaces/{NAMESPACE}"
    parts = (f"/apis/{API_VERSION}{namespace}/{plural}", name, subresource)
    return "/".join(part for part in parts if part)


def sandbox(name: str, image: str = "busybox", **spec) -> dict:
    """A small one, unless told otherwise. It comes back after a failure: a guest's kernel that patches itself at boot
    was seen to panic in emulation (a double fault in error_entry, 0.6 s after its start), as its node did before."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Sandbox",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "source": {"image": {"name": image}},
            "resources": SMALL,
            "restartPolicy": "OnFailure",
            **spec,
        },
    }


def clone(name: str, template: str, **spec) -> dict:
    """A sandbox that starts from a template, with what was frozen in it."""
    made = sandbox(name, **spec)
    del made["spec"]["resources"]
    made["spec"]["source"] = {"snapshotTemplate": {"name": template}}
    return made


def template(name: str, source: str, **spec) -> dict:
    return {
        "apiVersion": API_VERSION,
        "kind": "SnapshotTemplate",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"source": {"sandbox": {"name": source}}, **spec},
    }
