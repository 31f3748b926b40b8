"""Kubeconfig files that hold everything themselves, so that they can be copied into a node."""

from __future__ import annotations

import base64
from pathlib import Path

from bed.certificates import KeyPair


def write(
    path: Path, *, server: str, ca_file: Path, user: str | KeyPair, namespace: str = "default"
) -> Path:
    """`user` is a token, or a client certificate with its key. Only the owner may read the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    if isinstance(user, KeyPair):
        cert, key = _base64(user.cert), _base64(user.key)
        credentials = f"client-certificate-data: {cert}\n    client-key-data: {key}"
    else:
        credentials = f"token: {user}"
    path.write_text(
        f"""\
apiVersion: v1
kind: Config
current-context: dormouse
clusters:
- name: dormouse
  cluster:
    server: {server}
    certificate-authority-data: {_base64(ca_file)}
users:
- name: dormouse
  user:
    {credentials}
contexts:
- name: dormouse
  context:
    cluster: dormouse
    user: dormouse
    namespace: {namespace}
""",
        encoding="ascii",
    )
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
