"""Whole files, written so that a reader never sees half of one.

Temporary file, fsync, rename (POSIX rename is atomic within a folder). Appending is not here: see `events`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.foreign import JOB, parse_json
from studio.reach import open_in

# Given back before the last words are written, so that a full disk cannot swallow the reason.
RESERVE = ".reserve"
RESERVE_BYTES = 64 * 1024
# What a job makes in its folder, apart from files that are replaced whole.
_WRITTEN = ("events.jsonl", "log.txt", ".untold", "checkpoints", "model", "base", "exports", "report", "work", "ranks")


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text`; on any failure the old content stays.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 before there is one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; None when it is not there.

    Raises:
        OSError: the disk does not answer.
        ValueError: it is damaged, larger than a job's files are, another user's alone, or no file but a folder, a link
            or a pipe.
    """
    try:
        with open_in(path.parent, path.name) as file:
            return parse_json(file.read(JOB.bytes + 1), JOB)
    except FileNotFoundError:
        return None
    except InputError as error:
        raise ValueError(error.sentence) from error
    except (PermissionError, IsADirectoryError) as error:  # one such file must not hide all the others
        raise ValueError(f"{path.name}: {error.strerror}") from error


def write_reserve(folder: Path) -> None:
    """Take the space that is given back when the disk is full.

    Raises:
        OSError: it is full already.
    """
    (folder / RESERVE).unlink(missing_ok=True)
    with (folder / RESERVE).open("xb") as file:  # never through a link
        file.write(bytes(RESERVE_BYTES))


def links_to_write(folder: Path) -> list[str]:
    """The links where a job writes and removes: in a folder that came from elsewhere they may lead to anything."""
    return [name for name in _WRITTEN if (folder / name).is_symlink()]


def new_folder(target: Path) -> Path:
    """Make an empty folder beside `target`, to be filled and then put in its place by `put_folder`."""
    folder = target.with_name(f".{target.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def put_folder(folder: Path, target: Path) -> None:
    """Put a filled folder in the place of `target`: until then the older one stays, whatever happens.

    Raises:
        OSError: the disk is full or broken; `target` is as it was.
    """
    for path in [*folder.rglob("*"), folder]:
        sync(path)
    older = target.with_name(f".{target.name}.old")
    shutil.rmtree(older, ignore_errors=True)
    if target.exists():
        target.rename(older)
    folder.rename(target)
    sync(target.parent)
    shutil.rmtree(older, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
