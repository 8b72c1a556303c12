"""States from which a training goes on: which of them are whole, and how far they are.

The trainer writes a checkpoint file by file, so a process that is killed leaves half of one behind. A whole one is
sealed: every file is on the disk (fsync) before a last file with their sizes says so. Anything else is not used.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.jobs.store.files import read_json, sync, write_json

SEAL = "studio.json"
BEST = "best.json"
Kept = Literal["all", "last", "none"]
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

    Args:
        folder: the checkpoint, completely written.
        step: global step it was taken at.
        progress: counters a resumed run continues from (tokens, seconds).

    Raises:
        OSError: the disk is full or broken; the checkpoint stays without a seal.
    """
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync(path)
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        sync(inner)
    write_json(folder / SEAL, {"step": step, "progress": progress, "files": sizes})
    sync(folder)
    sync(folder.parent)


def whole(folder: Path) -> list[Checkpoint]:
    """Return the whole checkpoints, the one with the fewest steps first."""
    found = [opened for path in folder.glob("checkpoint-*") if (opened := _opened(path)) is not None]
    return sorted(found, key=lambda one: one.step)


def last_whole(folder: Path) -> Checkpoint | None:
    """Return the whole checkpoint with the most steps; None if there is none."""
    return next(reversed(whole(folder)), None)


def keep_only(folder: Path, kept: Kept) -> list[int]:
    """Remove the checkpoints of a completed run that are not to stay; the one that best.json names always stays.

    Args:
        folder: the job's checkpoints.
        kept: all of them, the last whole one, or none.

    Returns:
        the steps of those that were removed.

    Raises:
        OSError: one of them could not be removed.
    """
    if kept == "all":
        return []
    last = last_whole(folder) if kept == "last" else None
    staying = {best_step(folder), None if last is None else last.step}
    return _remove(folder, lambda step: step not in staying)


def best_step(folder: Path) -> int | None:
    """Step of the checkpoint with the best validation, where the run noted it in best.json."""
    try:
        return int(read_json(folder / BEST)["step"])
    except (OSError, TypeError, KeyError, ValueError):
        return None


def whole_steps(folder: Path) -> list[int]:
    """Return the steps of all whole checkpoints, in order."""
    return [one.step for one in whole(folder)]


def remove_older(folder: Path, limit: int, keep: int | None = None) -> None:
    """Remove checkpoints until the newest `limit` whole ones stay, and the one of step `keep` beside them.

    Called once a new one is sealed: what is removed before that could be the last whole one.

    Args:
        folder: that holds the checkpoints.
        limit: newest whole checkpoints to keep, at least 1.
        keep: step of the best one; None for none.

    Raises:
        OSError: one of them could not be removed.
    """
    steps = whole_steps(folder)
    staying = {*steps[-limit:], keep}
    _remove(folder, lambda step: step < steps[-1] and step not in staying)


def _remove(folder: Path, goes: Callable[[int], bool]) -> list[int]:
    removed = []
    for path in folder.glob("checkpoint-*"):
        name = _NAME.fullmatch(path.name)
        if name is not None and goes(int(name[1])) and not path.is_symlink():
            (path / SEAL).unlink(missing_ok=True)  # from here on it is not whole, however the removal ends
            shutil.rmtree(path)
            removed.append(int(name[1]))
    return sorted(removed)


def _opened(folder: Path) -> Checkpoint | None:
    try:
        raw = read_json(folder / SEAL)
        step, progress, sizes = int(raw["step"]), dict(raw["progress"]), dict(raw["files"])
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, TypeError, KeyError, ValueError):
        return None
    name = _NAME.fullmatch(folder.name)
    return Checkpoint(folder, step, progress) if whole and name is not None and int(name[1]) == step else None
