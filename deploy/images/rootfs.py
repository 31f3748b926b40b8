"""The root file system of an image, put together file by file: programs, the shared libraries that they link, and for
each file the licence and the name of the package that it came from. Nothing is there by default.

The libraries are this machine's, which must be Debian or Ubuntu: dpkg says which package owns a file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

LICENCES = Path("/usr/share/common-licenses")
SECONDS = 120
# Where the programs are, and where a container's PATH must look.
BIN = "usr/bin"


class BuildError(RuntimeError):
    """An image cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Part:
    """Something with a name and a version of its own in the image: an entry of the SBOM."""

    name: str
    version: str
    licence: str = "NOASSERTION"  # an SPDX expression
    source: str = "NOASSERTION"  # where it can be had
    purl: str = ""
    compiled_in: bool = False  # only as a part of a program of ours


@dataclass
class Rootfs:
    """A directory that becomes an image's root. Files get mode and content here; owner and time when it is packed."""

    root: Path
    parts: dict[str, Part] = field(default_factory=dict)  # by name

    def __post_init__(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in (BIN, "usr/lib64", "etc", "usr/share/doc"):
            (self.root / folder).mkdir(parents=True)
        for name in ("lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")

    def write(self, place: str, content: str | bytes, mode: int = 0o644) -> None:
        target = self.root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def copy(self, source: Path, place: str, mode: int = 0o644) -> None:
        self.write(place, source.read_bytes(), mode)

    def add_program(self, source: Path, name: str) -> None:
        """Stripped, with the libraries that it links and their packages."""
        place = self.root / BIN / name
        run(["strip", "--strip-unneeded", "-o", str(place), str(source)])
        place.chmod(0o755)
        for library in shared_libraries(source):
            self._add_library(library)

    def add_part(self, part: Part, notice: str) -> None:
        """`notice` is what the licence asks to be kept with the program."""
        self.parts[part.name] = part
        self._write_notice(part.name, notice)

    def add_accounts(self, *accounts: tuple[str, int]) -> None:
        everyone = (("root", 0), *accounts)
        self.write("etc/passwd", "".join(f"{name}:x:{uid}:{uid}:{name}:/:/nonexistent\n" for name, uid in everyone))
        self.write("etc/group", "".join(f"{name}:x:{uid}:\n" for name, uid in everyone))

    def add_certificates(self) -> None:
        """Mozilla's authorities as the distribution ships them; not what this machine trusts beside them."""
        folder = Path("/usr/share/ca-certificates/mozilla")
        certificates = sorted(folder.glob("*.crt"))
        if not certificates:
            raise BuildError(f"{folder} is empty: apt-get install ca-certificates")
        text = "".join(path.read_text(encoding="ascii").rstrip("\n") + "\n" for path in certificates)
        self.write("etc/ssl/certs/ca-certificates.crt", text)
        self.add_package("ca-certificates")

    def add_package(self, package: str, compiled_in: bool = False) -> None:
        """The name, version and licence of a Debian package of which files are here, or compiled into a program."""
        known = self.parts.get(package)
        if known and (compiled_in or not known.compiled_in):
            return
        fields = dpkg_fields(package)
        version = quote(fields["Version"], safe="")
        purl = f"pkg:deb/{distribution()}/{quote(package)}@{version}?arch={fields['Architecture']}"
        source = f"{fields.get('Source', package)} of the distribution"
        self.parts[package] = Part(package, fields["Version"], source=source, purl=purl, compiled_in=compiled_in)
        copyright_file = Path("/usr/share/doc") / package / "copyright"
        if not copyright_file.is_file():
            raise BuildError(f"{copyright_file} is missing: documentation was left out when the package was installed")
        self._write_notice(package, copyright_file.read_text(encoding="utf-8", errors="replace"))
        if not compiled_in:
            # Scanners of images look here for what a distribution's advisories name.
            lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
            self.write(f"var/lib/dpkg/status.d/{package}", lines)

    def _add_library(self, library: Path) -> None:
        # Debian's loader has this path, and the directories of the libraries, compiled in.
        place = f"usr/lib64/{library.name}" if library.name.startswith("ld-linux") else f"usr{strip_usr(library)}"
        if (self.root / place).exists():
            return
        self.copy(library.resolve(), place, 0o755)
        self.add_package(owner_of(library.resolve()))

    def _write_notice(self, name: str, text: str) -> None:
        self.write(f"usr/share/doc/{name}/copyright", text)
        # Debian's files refer to licences of which each system has one copy.
        for licence in sorted(set(re.findall(rf"{LICENCES}/([A-Za-z]+(?:-[0-9]+(?:\.[0-9]+)*)?)", text))):
            if (LICENCES / licence).is_file():
                self.copy(LICENCES / licence, f"{str(LICENCES)[1:]}/{licence}")


def strip_usr(path: Path) -> str:
    return str(path.parent.resolve() / path.name).removeprefix("/usr")


def shared_libraries(program: Path) -> list[Path]:
    """As this machine's loader finds them; none for a static program."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=SECONDS, check=False)
    found = []
    for line in done.stdout.splitlines():
        name, _, where = line.strip().partition(" => ")
        if where.startswith("not found"):
            raise BuildError(f"{program} links {name}, which is not on this machine")
        path = Path((where or name).split(" (")[0])
        if path.is_absolute():
            found.append(path)
    return found


def distribution() -> str:
    return re.search(r"^ID=(\w+)", Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)[1]


def owner_of(path: Path) -> str:
    """The package of a file; both of its names are tried, as /lib has become a link."""
    names = [str(path), str(path).removeprefix("/usr")]
    done = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, timeout=SECONDS, check=False)
    for line in done.stdout.splitlines():
        if not line.startswith("diversion "):
            return line.split(": ")[0].split(", ")[0].split(":")[0]
    raise BuildError(f"no package owns {path}: its licence is not known")


def dpkg_fields(package: str) -> dict[str, str]:
    wanted = ("Package", "Status", "Source", "Version", "Architecture", "Maintainer", "Homepage")
    form = "".join(f"{key}: ${{{key}}}\\n" for key in wanted)
    lines = run(["dpkg-query", "-W", "-f", form, package]).splitlines()
    fields = {key: value for key, _, value in (line.partition(": ") for line in lines[: len(wanted)])}
    return {key: value for key, value in fields.items() if value}


def compiled_in(build: Path, program: str) -> set[str]:
    """The packages whose headers, and so maybe whose code, a program was compiled from; ninja remembers."""
    objects = [
        line for line in run(["ninja", "-C", str(build), "-t", "inputs", f"bin/{program}"]).splitlines()
        if line.endswith(".o")
    ]  # fmt: skip
    listed = run(["ninja", "-C", str(build), "-t", "deps", *objects])
    forgotten = re.findall(r"^(\S+): deps not found", listed, re.MULTILINE)
    if forgotten:
        raise BuildError(f"ninja has forgotten what {forgotten[0]} was compiled from: remove it, and build again")
    headers = sorted({line.strip() for line in listed.splitlines() if line.startswith("    /usr/")})
    names = {str(Path(header).resolve()) for header in headers}
    done = subprocess.run(
        ["dpkg-query", "-S", *sorted(names)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return {line.split(": ")[0].split(", ")[0].split(":")[0] for line in done.stdout.splitlines()}


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:4])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
