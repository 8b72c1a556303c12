"""Files of an export: room on the disk before writing, and the SHA-256 afterwards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError

HASH_BLOCK = 4 * 1024 * 1024
# Left free whatever is written: the job's own log, events and report must still fit.
SPARE_BYTES = 64 * 1024 * 1024
LARGER_HOME = "Free some space, or set STUDIO_HOME to a folder on a larger disk; what is exported is not affected"


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write in the file system of an existing folder."""
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: int, what: str, fix: str = LARGER_HOME) -> None:
    """Refuse work whose result would not fit.

    Args:
        folder: existing folder on the file system that is written to.
        needed: bytes.
        what: what needs them, for the sentence ("the q4_k_m file").
        fix: what the person can do.

    Raises:
        StudioError: too little is free.
    """
    free = free_bytes(folder)
    if free < needed + SPARE_BYTES:
        raise StudioError(
            f"{what} needs {in_words(needed + SPARE_BYTES)} of disk space, but only {in_words(free)} is free",
            where=str(folder),
            fix=fix,
        )


def in_words(count: float) -> str:
    """Bytes as a person reads them, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    """SHA-256 of a file as hexadecimal digits; `on_bytes` gets the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            done += len(block)
            on_bytes(done)
    return digest.hexdigest()


def newest(folder: Path) -> float:
    """When a file of a folder was last written, as Unix seconds; 0 where it has none."""
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)


def parts_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The files of a report's line, each with "file", "bytes" and "sha256": a folder's, a divided GGUF's, or itself."""
    found: list[dict[str, Any]] = entry.get("parts") or entry.get("shards") or [entry]
    return found
