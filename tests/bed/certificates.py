"""A throw-away certificate authority and what it signs, made with the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "3650"


class CertificateError(RuntimeError):
    """openssl refused; the message is its own."""


@dataclass(frozen=True)
class KeyPair:
    cert: Path
    key: Path


@dataclass(frozen=True)
class CertificateAuthority:
    """Makes key pairs in `folder`. Keys are P-256: quick to make, and quick in a handshake."""

    folder: Path

    @property
    def cert(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def _key(self) -> Path:
        return self.folder / "ca.key"

    @classmethod
    def create(cls, folder: Path, name: str) -> "CertificateAuthority":
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        authority = cls(folder)
        make_key(authority._key)
        _openssl(
            "req", "-x509", "-new", "-key", str(authority._key), "-days", DAYS, "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", str(authority.cert),
        )  # fmt: skip
        return authority

    def issue(
        self,
        file_name: str,
        common_name: str,
        *,
        organization: str = "",
        names: tuple[str, ...] = (),
    ) -> KeyPair:
        """A certificate for a client and, with `names` such as "IP:127.0.0.1" or "DNS:localhost",
        for a server."""
        pair = KeyPair(self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key")
        make_key(pair.key)
        subject = f"/O={organization}/CN={common_name}" if organization else f"/CN={common_name}"
        request = _openssl("req", "-new", "-key", str(pair.key), "-subj", subject)
        extensions = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        if names:
            extensions += f"subjectAltName={','.join(names)}\n"
        extension_file = self.folder / f"{file_name}.ext"
        extension_file.write_text(extensions, encoding="ascii")
        _openssl(
            "x509", "-req", "-CA", str(self.cert), "-CAkey", str(self._key), "-CAcreateserial", "-days", DAYS,
            "-extfile", str(extension_file), "-out", str(pair.cert), stdin=request,
        )  # fmt: skip
        extension_file.unlink()
        return pair


def make_key(path: Path) -> None:
    _openssl(
        "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)
    )
    path.chmod(0o600)


def make_public_key(key: Path, path: Path) -> None:
    _openssl("pkey", "-in", str(key), "-pubout", "-out", str(path))


def _openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["openssl", *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise CertificateError(
            f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout
