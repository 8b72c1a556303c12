"""Sees to it that a supervisor runs while there is something to do, for a process that lives as long as the page.

Whoever submits a job starts a supervisor, but one that is killed later would be missed by nobody: what runs goes on,
and what waits would wait for ever.
"""

from __future__ import annotations

from studio.jobs.actions.client import ensure_supervisor
from studio.jobs.actions.queue import tell_held
from studio.jobs.views.index import JobIndex
from studio.locks import HeldError
from studio.settings import Settings

KEEP_SECONDS = 5.0


class Keeper:
    """Looks again and again, at the cost of what has changed. Not safe to share between threads."""

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
