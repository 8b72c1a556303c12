"""The files of a job there, brought into its folder here while it runs: results, reports and sealed checkpoints.

Beside the loop that shows the events, since a checkpoint may take minutes. A file comes under its name when it is
whole, a checkpoint only once it is sealed there, and one that was removed there goes here, too.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from studio.errors import StudioError
from studio.jobs.store.checkpoints import SEAL
from studio.jobs.store.folder import JobFolder
from studio.launch.ssh.machine import BrokenError
from studio.launch.ssh.sending import run_rsync, uses_rsync
from studio.launch.ssh.setup import Studio
from studio.launch.ssh.there import NOT_COPIED

Files = dict[str, tuple[int, int]]
"""Size in bytes and time in whole seconds of each file, by its path in the job's folder."""
# Comes with its paths rewritten.
_TOLD = ("environment.json", "launch.json")
_CHECKPOINT = re.compile(r"checkpoints/(checkpoint-(\d+))/")
_LONG = 7 * 24 * 3600.0


def wanted(listed: list[Any], checkpoints: Literal["all", "last", "none"]) -> Files:
    """Choose what is to come back of the files there.

    Args:
        listed: path, size and time of each, as the other machine says; a path that leads elsewhere is passed over.
        checkpoints: which of them.
    """
    files = {str(path): (int(size), int(time)) for path, size, time in listed if _is_inside(str(path))}
    sealed = {
        match[1]: int(match[2]) for path in files if (match := _CHECKPOINT.match(path)) and path.endswith(f"/{SEAL}")
    }
    sealed = {name: step for name, step in sealed.items() if f"checkpoints/{name}/{SEAL}" in files}  # not one deeper
    if checkpoints == "last":
        sealed = dict(sorted(sealed.items(), key=lambda one: one[1])[-1:])
    if checkpoints == "none":
        sealed = {}
    return {
        path: stamp for path, stamp in files.items()
        if (match := _CHECKPOINT.match(path)) is None or match[1] in sealed
    }  # fmt: skip


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = not path.startswith("/") and all(part not in ("..", "") and not part.startswith(".") for part in parts)
    return bool(parts) and plain and parts[0] not in (*NOT_COPIED, *_TOLD) and "\0" not in path


class Mirror:
    """Keeps a job's folder here like the one there.

    Args:
        studio: on the other machine.
        job: the folder here.
        there: the folder there.
        checkpoints: which of them come back.
    """

    def __init__(self, studio: Studio, job: JobFolder, there: str, checkpoints: Literal["all", "last", "none"]) -> None:
        self._studio, self._job, self._there, self._checkpoints = studio, job, there, checkpoints
        self._thread: threading.Thread | None = None
        self._failed: StudioError | OSError | None = None
        self._ended = False

    def update(self, listed: list[Any]) -> bool:
        """Bring what is new, beside what the caller does; return whether all of it is here.

        Args:
            listed: the files there.

        Raises:
            StudioError, OSError: the copying before this one failed.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        files = wanted(listed, self._checkpoints)
        remove_absent(self._job, files)
        absent = [path for path, stamp in files.items() if stamp_of(self._job.path / path) != stamp]
        if not absent:
            return True
        self._thread = threading.Thread(target=self._bring, args=(absent,), name="mirror", daemon=True)
        self._thread.start()
        return False

    def close(self) -> None:
        """End what is under way."""
        self._ended = True
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _bring(self, paths: list[str]) -> None:
        try:
            if uses_rsync(self._studio):
                listed = "".join(f"{path}\0" for path in paths).encode(errors="surrogateescape")
                places = [self._studio.machine.rsync_place(self._there), f"{self._job.path}/"]
                run_rsync(self._studio.machine, [], places, listed, self._check, full=_full_here(self._job.path))
            else:
                self._by_tar(paths)
        except (StudioError, OSError) as error:
            self._failed = error

    def _by_tar(self, paths: list[str]) -> None:
        """Whole into a folder beside, then each file into its place."""
        machine = self._studio.machine
        with tempfile.TemporaryDirectory(prefix=".arriving-", dir=self._job.path) as folder:
            with tempfile.TemporaryFile(dir=folder) as archive:
                given = {"id": self._job.id, "paths": paths}
                code, _, errors = machine.run(
                    self._studio.command("send"),
                    given=json.dumps(given).encode(),
                    seconds=_LONG,
                    output=archive,
                    meanwhile=self._check,
                )
                if code != 0:
                    said = (errors.strip().splitlines() or [f"status {code}"])[-1]
                    raise BrokenError(
                        f"files from {machine.shown} did not arrive ({said})", fix="The studio will try again"
                    )
                archive.seek(0)
                try:
                    with tarfile.open(fileobj=archive) as opened:
                        opened.extractall(folder, filter="data")
                except tarfile.TarError as error:
                    raise BrokenError(
                        f"only some files arrived from {machine.shown}", fix="The studio will try again"
                    ) from error
            for path in paths:
                if (Path(folder) / path).is_file():
                    target = self._job.path / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / path).replace(target)

    def _check(self) -> None:
        if self._ended:
            raise BrokenError("the copying was ended")


def remove_absent(job: JobFolder, files: Files) -> None:
    """Remove checkpoints that are not there any more; the seal first, so that none is ever half here."""
    there = {match[1] for path in files if (match := _CHECKPOINT.match(path))}
    for folder in job.checkpoints.glob("checkpoint-*"):
        if folder.name not in there and not folder.is_symlink():
            (folder / SEAL).unlink(missing_ok=True)
            shutil.rmtree(folder)


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Size and time in whole seconds of a file; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, int(found.st_mtime)


def _full_here(folder: Path) -> Callable[[], Exception]:
    return lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
