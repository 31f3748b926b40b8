"""A cache of built things, keyed by what went into them:
${XDG_CACHE_HOME:-~/.cache}/dormouse/<name>-<key>/.

An entry is a folder that appears whole, by one rename, and is never written again. Several
processes may ask for the same entry at once: a lock file lets one build it while the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterable


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "dormouse"


def key_of(inputs: Iterable[str | bytes | Path]) -> str:
    """Twelve hex digits of all inputs; a Path stands for the content of that file."""
    digest = hashlib.sha256()
    for item in inputs:
        data = item.read_bytes() if isinstance(item, Path) else item
        data = data.encode() if isinstance(data, str) else data
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:12]


def cached(name: str, inputs: Iterable[str | bytes | Path], build: Callable[[Path], None]) -> Path:
    """The entry's folder; `build` fills an empty one where there is none yet."""
    root = cache_dir()
    entry = root / f"{name}-{key_of(inputs)}"
    if entry.is_dir():
        return entry
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if entry.is_dir():  # another process made it while we waited
            return entry
        began = time.monotonic()
        print(f"bed: making {entry.name}, once", file=sys.stderr, flush=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            build(work)
            work.chmod(0o755)
            os.rename(work, entry)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print(
            f"bed: {entry.name} took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True
        )
    return entry
