"""The line of waiting jobs: its order, and what may be done to a job while it waits.

Jobs wait in the order in which they were asked for. Once somebody moves one, `queue.json` in the home holds the ids in
their new order, written whole; jobs that it does not name come after those that it names. It is only an order: without
it, or damaged, every job is still there and is started.

One lock of the home (`queue.lock`) stands between the supervisor, which makes a waiting job a starting one, and whoever
changes what waits: so a job is started with its old settings or its new ones, never with something between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError
from studio.jobs.actions.branching import check_changes, require_length
from studio.jobs.actions.client import ensure_supervisor
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.finding import list_jobs
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import write_request
from studio.jobs.views.index import JobIndex
from studio.locks import PATIENCE, HeldError, locked
from studio.private import make_home
from studio.reach import roots_of_page
from studio.settings import Settings

Move = Literal["up", "down", "first", "last"]
KEEP_SECONDS = 5.0


def queue_lock(home: Path, seconds: float = PATIENCE) -> AbstractContextManager[None]:
    """Hold the lock under which a waiting job is started or changed; raises HeldError after `seconds`."""
    return locked(make_home(home) / "queue.lock", "queued jobs can neither start nor be changed", seconds=seconds)


def tell_held(job: JobFolder, error: HeldError) -> None:
    """Say in a waiting job's events who keeps it from starting: page and terminal show them."""
    with contextlib.suppress(InputError):  # a link in the place of its events; it is refused when it starts
        writer = EventWriter(job.events_path)
        writer.write("notice", level="warning", text=f"{error.what}.", fix=error.fix)
        writer.close()


def place_key(home: Path) -> Callable[[str, float], tuple[int, float, str]]:
    """Return the function by whose value waiting jobs are sorted, from a job's id and when it was created."""
    try:
        order = read_json(home / "queue.json")
    except ValueError:  # damaged: the order of asking is left
        order = None
    places = {str(job): place for place, job in enumerate(order)} if isinstance(order, list) else {}
    return lambda job, created: (0, places[job], job) if job in places else (1, created, job)


def in_line(jobs: list[JobFolder], home: Path) -> list[JobFolder]:
    """Sort waiting jobs, first in line first."""
    key = place_key(home)
    return sorted(jobs, key=lambda job: key(job.id, job.state().created))


def waiting(settings: Settings) -> list[JobFolder]:
    """Return the jobs that wait, first in line first."""
    return in_line([job for job in list_jobs(settings.jobs) if job.state().status == "queued"], settings.home)


def move(settings: Settings, job: JobFolder, to: Move) -> int:
    """Give a waiting job another place in the line.

    Args:
        settings: of the home.
        job: a waiting one.
        to: one place up or down, or to either end.

    Returns:
        its place now, from 1.

    Raises:
        InputError: it does not wait any more.
        HeldError: somebody keeps the lock of the line.
    """
    with queue_lock(settings.home):
        _require_waiting(job)
        order = [one.id for one in waiting(settings)]
        old = order.index(job.id)
        order.remove(job.id)
        new = {"up": max(0, old - 1), "down": old + 1, "first": 0, "last": len(order)}[to]
        order.insert(new, job.id)
        write_json(settings.home / "queue.json", order)
    return order.index(job.id) + 1


def rewrite(settings: Settings, job: JobFolder, config: dict[str, Any], steps: int | None = None) -> None:
    """Give a waiting job other settings. They must have been checked before: the lock is held for a moment only.

    Args:
        settings: the studio's settings.
        job: the job.
        config: its new settings.
        steps: updates in all, as the plan of a training says; None where none could be made yet.

    Raises:
        InputError: it has begun meanwhile, is to be removed, goes on from a checkpoint, or branches off one that does
            not fit the new settings or lies behind their end; nothing is changed then.
        HeldError: somebody keeps the lock of the line.
    """
    with queue_lock(settings.home):
        require_unbegun(job)
        _require_waiting(job)
        asked = JobFolder(job.path).request
        if asked.branch is not None:  # what it begins with fits only what it was made for
            check_changes(job, build(RunConfig, config, "job.yaml"))
            if steps is not None:
                require_length(asked.branch.step, steps)
        write_request(job.path, replace(asked, config=config, roots=roots_of_page()))


def require_unbegun(job: JobFolder) -> None:
    """Check that a job is one whose settings can still be changed.

    Raises:
        InputError: it has begun, or goes on from a checkpoint.
    """
    state, name = job.state(), job.request.name
    if state.status != "queued":
        raise InputError(
            f"'{name}' has already started ({state.status}), so its settings cannot change",
            where=job.id,
            fix="Duplicate it to create a run with other settings",
        )
    if state.attempt > 1:
        raise InputError(
            f"'{name}' resumes from a checkpoint, so its settings cannot change",
            where=job.id,
            fix="Duplicate it to create a run with other settings",
        )


class Keeper:
    """Sees to it that a supervisor runs while there is something to do, for a process that lives as long as the page.

    Whoever submits a job starts a supervisor, but one that is killed later would be missed by nobody: what runs goes
    on, and what waits would wait for ever. Looks at the cost of what has changed. Not safe to share between threads.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._index = JobIndex(settings.jobs)
        self._told: set[str] = set()

    def look(self) -> None:
        """Start a supervisor if a job is not over and none runs; who keeps one from starting is said in what waits.

        Raises:
            OSError: the home cannot be written.
        """
        busy = []
        for job in self._index.look()[0]:
            if job.state().final:
                self._index.rest(job.id)
            else:
                busy.append(job)
        if not busy:
            return
        try:
            ensure_supervisor(self._settings)
            self._told.clear()
        except HeldError as error:  # said once in what waits: it may last
            for job in busy:
                if job.id not in self._told and job.state().status == "queued":
                    self._told.add(job.id)
                    tell_held(job, error)


def _require_waiting(job: JobFolder) -> None:
    state, name = job.state(), job.request.name
    if state.status != "queued":
        raise InputError(f"'{name}' is no longer queued ({state.status})", where=job.id)
    if job.stop_path.exists():
        raise InputError(f"'{name}' is being removed from the queue", where=job.id)
