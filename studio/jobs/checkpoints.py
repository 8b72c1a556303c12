"""States from which a training goes on: which of them are whole, and how far they are.

The trainer writes a checkpoint file by file, so a process that is killed leaves half of one behind. A whole one is
sealed: every file is on the disk (fsync) before a last file with their sizes says so. Anything else is not used.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from studio.jobs.files import read_json, write_json

SEAL = "studio.json"
BEST = "best.json"
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: its folder.
        step: updates made until then.
        progress: what was counted until then (tokens, seconds), to be counted on.
    """

    path: Path
    step: int
    progress: dict[str, float]


def seal(folder: Path, step: int, progress: dict[str, float]) -> None:
    """Say that a checkpoint is whole, once all of it is on the disk.

    Raises:
        OSError: the disk is full or broken; the checkpoint stays without a seal.
    """
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync(path)
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        _sync(inner)
    write_json(folder / SEAL, {"step": step, "progress": progress, "files": sizes})
    _sync(folder)
    _sync(folder.parent)


def last_whole(folder: Path) -> Checkpoint | None:
    """Return the whole checkpoint with the most steps; None if there is none."""
    found = [opened for path in folder.glob("checkpoint-*") if (opened := _opened(path)) is not None]
    return max(found, key=lambda one: one.step, default=None)


def whole_steps(folder: Path) -> list[int]:
    """Return the steps of all whole checkpoints, in order."""
    return sorted(opened.step for path in folder.glob("checkpoint-*") if (opened := _opened(path)) is not None)


def remove_older(folder: Path, limit: int, keep: int | None = None) -> None:
    """Remove checkpoints until the newest `limit` whole ones stay, and the one of step `keep` beside them.

    Called once a new one is sealed: what is removed before that could be the last whole one.

    Raises:
        OSError: one of them could not be removed.
    """
    steps = whole_steps(folder)
    staying = {*steps[-limit:], keep}
    for path in folder.glob("checkpoint-*"):
        name = _NAME.fullmatch(path.name)
        if name is not None and int(name[1]) < steps[-1] and int(name[1]) not in staying:
            (path / SEAL).unlink(missing_ok=True)  # from here on it is not whole, however the removal ends
            shutil.rmtree(path)


def _opened(folder: Path) -> Checkpoint | None:
    try:
        raw = read_json(folder / SEAL)
        step, progress, sizes = int(raw["step"]), dict(raw["progress"]), dict(raw["files"])
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, TypeError, KeyError, ValueError):
        return None
    name = _NAME.fullmatch(folder.name)
    return Checkpoint(folder, step, progress) if whole and name is not None and int(name[1]) == step else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
