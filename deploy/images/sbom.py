"""What is in an image, as SPDX 2.3 (spdx.github.io/spdx-spec/v2.3), in JSON. The same image gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from rootfs import Part


def spdx(name: str, version: str, created: str, parts: list[Part], tree: Path) -> str:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    digests = {f"./{path.relative_to(tree)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    # A name of this document alone: of what it describes.
    identity = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()
    image = {
        "SPDXID": "SPDXRef-Image", "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER",
    }  # fmt: skip
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://dormouse.dev/spdx/{name}/{version}/{identity}",
        "creationInfo": {"created": created, "creators": ["Tool: dormouse-make-images"]},
        "packages": [image, *(_package(part) for part in parts)],
        "files": [
            {"SPDXID": f"SPDXRef-File-{number}", "fileName": place, "copyrightText": "NOASSERTION",
             "licenseConcluded": "NOASSERTION", "checksums": [{"algorithm": "SHA256", "checksumValue": digest}]}
            for number, (place, digest) in enumerate(digests.items())
        ],  # fmt: skip
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"),
            *(
                _related(_id(part), "STATIC_LINK", "SPDXRef-Image")
                if part.compiled_in
                else _related("SPDXRef-Image", "CONTAINS", _id(part))
                for part in parts
            ),
            *(_related("SPDXRef-Image", "CONTAINS", f"SPDXRef-File-{number}") for number in range(len(digests))),
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _package(part: Part) -> dict:
    package = {
        "SPDXID": _id(part), "name": part.name, "versionInfo": part.version, "filesAnalyzed": False,
        "downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION", "licenseDeclared": part.licence,
        "copyrightText": "NOASSERTION",
    }  # fmt: skip
    if part.source != "NOASSERTION":
        package["sourceInfo"] = part.source
    if part.purl:
        package["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl}
        ]
    return package


def _id(part: Part) -> str:
    return "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.-]", "-", part.name)


def _related(one: str, how: str, other: str) -> dict:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}
