"""How many bytes a job's folder takes, by part, and how many its removal would free.

Symbolic links are never followed, and a file with several names counts once. A file that has a further name outside
the folder (a base model that was linked in) takes no space of its own: removing the job would not free it.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from studio.jobs.store.folder import JobFolder

PARTS = ("checkpoints", "model", "exports", "rest")


@dataclass
class DiskUse:
    """Bytes of a folder, by part.

    Attributes:
        checkpoints, model, exports, rest: what the parts take; `rest` is logs, reports and everything else.
        shared: how many of them have another name outside the folder.
    """

    checkpoints: int = 0
    model: int = 0
    exports: int = 0
    rest: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.checkpoints + self.model + self.exports + self.rest

    @property
    def freed(self) -> int:
        """Bytes that are free once the folder is gone."""
        return self.total - self.shared

    def as_dict(self) -> dict[str, int]:
        """For JSON, with the sums."""
        return asdict(self) | {"total": self.total, "freed": self.freed}


@dataclass
class _File:
    part: str
    bytes: int
    names: int
    found: int = 0


def measure(*folders: Path) -> DiskUse:
    """Walk folders that would go together; what disappears meanwhile counts as nothing.

    Together, since a run and its branch share the files of a checkpoint: removing one of them frees none of it.
    """
    files: dict[tuple[int, int], _File] = {}
    for part, info in (found for folder in folders for found in _walk(folder, "")):
        one = files.setdefault((info.st_dev, info.st_ino), _File(part, info.st_size, info.st_nlink))
        one.found += 1
    use = DiskUse()
    for one in files.values():
        setattr(use, one.part, getattr(use, one.part) + one.bytes)
        if one.found < one.names:
            use.shared += one.bytes
    return use


@dataclass
class DiskBook:
    """Sizes of many jobs, each measured again only when its folder has changed. Safe to share between threads."""

    _known: dict[str, tuple[tuple[int, ...], DiskUse]] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)  # when a job's folder was last looked at
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, job: JobFolder) -> DiskUse:
        """Return the sizes of a job, up to date."""
        stamp = _stamp(job)
        with self._lock:
            self._looked[job.id] = time.monotonic()
            kept = self._known.get(job.id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        use = measure(job.path)
        with self._lock:
            self._known[job.id] = (stamp, use)
        return use

    def sizes(self, jobs: Iterable[JobFolder], seconds: float) -> tuple[dict[str, int], bool]:
        """Return total bytes by id, and whether all of them are known.

        Those never measured come first, then those that were not looked at for longest: what takes longer than
        `seconds` is left for the next call.
        """
        end = time.monotonic() + seconds
        with self._lock:
            looked = dict(self._looked)
        ordered = sorted(jobs, key=lambda job: looked.get(job.id, 0.0))
        for job in ordered:
            if time.monotonic() > end:
                break
            self.of(job)
        with self._lock:
            sizes = {job.id: self._known[job.id][1].total for job in ordered if job.id in self._known}
        return sizes, len(sizes) == len(ordered)


def gigabytes(count: int) -> str:
    """A size in the unit that fits, as the page writes it: '1.23 GB', '456 kB'."""
    for name, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            digits = max(0, 3 - len(str(count // size)))
            return f"{count / size:.{digits}f} {name}"
    return f"{count} bytes"


def _walk(folder: Path | str, part: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(entry.path, part or (entry.name if entry.name in PARTS else "rest"))
        elif stat.S_ISREG(info.st_mode):
            yield part or "rest", info


def _stamp(job: JobFolder) -> tuple[int, ...]:
    """Times of what changes when something is written: the job's files, and its folders two levels down."""
    paths = [job.path, job.state_path, job.events_path, job.log_path]
    for part in (job.checkpoints, job.model, job.exports, job.report):
        paths.append(part)
        if part == job.checkpoints and part.is_dir() and not part.is_symlink():
            paths += [Path(entry.path) for entry in os.scandir(part)]
    return tuple(_changed(path) for path in paths)


def _changed(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0
