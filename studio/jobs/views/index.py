"""The jobs of a home for those who look again and again: the page every second, the supervisor four times a second.

`list_jobs` reads the whole folder each time. Here a look costs what has changed: a job that is over rests, and its
folder's own time says when somebody wrote into it again. Not safe to share between threads; losing it costs one look
at every folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from studio.jobs.store.folder import JobFolder, is_made

# So many resting folders are looked at every time; of more, all of them this often (a folder costs 2 µs).
FEW = 500
SWEEP_SECONDS = 2.0
# File times advance in ticks of some milliseconds: what was written just now may be written again in the same tick.
SETTLED_NS = 2_000_000_000


class JobIndex:
    """Which jobs there are, and which of them may have changed since the last look.

    Attributes:
        jobs: all jobs by id, in no order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.jobs: dict[str, JobFolder] = {}
        self._making: set[str] = set()  # folders without state.json
        self._listed: int | None = None
        self._seen: dict[str, int] = {}  # times of the awake ones' folders
        self._resting: dict[str, int] = {}
        self._swept = 0.0
        self._gone: list[str] = []  # since the last look

    def look(self) -> tuple[list[JobFolder], list[str]]:
        """Look once.

        Returns:
            The jobs that may have changed since the last look, newest first, and the ids of those that are gone.
        """
        gone = [*self._gone, *self._list()]
        self._gone = []
        if len(self._resting) <= FEW or time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._sweep()
        for name in self._seen:
            self._seen[name] = changed_ns(self.jobs[name].path)
        return [self.jobs[name] for name in sorted(self._seen, reverse=True)], gone

    def find(self, job_id: str) -> JobFolder | None:
        """Look a job up among those that exist; the id is compared, never made part of a path."""
        if job_id not in self.jobs:
            self._gone += self._list()
        job = self.jobs.get(job_id)
        return job if job is not None and is_made(job.path) else None

    def rest(self, job_id: str) -> bool:
        """Say that a job is over, so that it is looked at again only when something was written into its folder.

        Returns:
            whether it rests now; not when its folder was changed just before.
        """
        seen = self._seen.get(job_id)
        if seen is None or abs(time.time_ns() - seen) <= SETTLED_NS:
            return False
        del self._seen[job_id]
        self._resting[job_id] = seen
        return True

    @property
    def resting(self) -> Mapping[str, int]:
        """The jobs that rest, with the times of their folders."""
        return self._resting

    def stamp(self, job_id: str) -> int:
        """Time of a job's folder at the last look, in nanoseconds."""
        return self._seen.get(job_id) or self._resting.get(job_id, 0)

    def _list(self) -> list[str]:
        """Read the names again if folders came or went; returns those that went. New ones are awake."""
        changed = changed_ns(self._folder)
        gone: list[str] = []
        if changed != self._listed:
            self._listed = changed if abs(time.time_ns() - changed) > SETTLED_NS else None
            self._swept = 0.0
            names = set(_names(self._folder))
            gone = [name for name in self.jobs if name not in names]
            for name in gone:
                del self.jobs[name]
                self._seen.pop(name, None)
                self._resting.pop(name, None)
            self._making = names - self.jobs.keys()
        # Texts, not paths: of ten thousand jobs these take a fifth of a second.
        for name in [name for name in self._making if is_made(f"{self._folder}/{name}")]:
            self._making.discard(name)
            self.jobs[name] = JobFolder(self._folder / name)
            self._seen[name] = 0
        return gone

    def _sweep(self) -> None:
        self._swept = time.monotonic()
        for name, stamp in list(self._resting.items()):
            if changed_ns(self.jobs[name].path) != stamp:
                del self._resting[name]
                self._seen[name] = 0


def changed_ns(path: Path) -> int:
    """Time of the last change of a file or of a folder's list of names, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [one.name for one in found if not one.name.startswith(".")]  # a dot: being removed
    except FileNotFoundError:
        return []
