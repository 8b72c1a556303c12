"""Sees to it that a supervisor runs while there is something to do, for a process that lives as long as the page.

Whoever submits a job starts a supervisor, but one that is killed later would be missed by nobody: what runs goes on,
and what waits would wait for ever.
"""

from __future__ import annotations

from studio.jobs.client import ensure_supervisor
from studio.jobs.index import JobIndex
from studio.settings import Settings

KEEP_SECONDS = 5.0


class Keeper:
    """Looks again and again, at the cost of what has changed. Not safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._index = JobIndex(settings.jobs)

    def look(self) -> None:
        """Start a supervisor if a job is not over and none runs.

        Raises:
            OSError: the home cannot be written.
        """
        busy = False
        for job in self._index.look()[0]:
            if job.state().final:
                self._index.rest(job.id)
            else:
                busy = True
        if busy:
            ensure_supervisor(self._settings)
