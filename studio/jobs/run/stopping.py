"""The phases of a stop: the worker is asked, gets SIGTERM, and is killed with everything that it began."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from studio.jobs.run.leftovers import kill_all
from studio.jobs.store.folder import JobFolder

# How long a job may take to finish its step and save before it is told by signal.
ASK_SECONDS = 120.0
TERM_SECONDS = 15.0
# What another machine works on is saved there and brought back, which takes as long as it takes.
FAR_SECONDS = 60.0
_THERE = "It may still be running at the service; stop it again to end it there"


@dataclass
class _Stop:
    """How far the stopping of one job has gone, in monotonic seconds."""

    asked: float
    termed: float | None = None
    killed: bool = False


class Stops:
    """The jobs that are being stopped, by id."""

    def __init__(self) -> None:
        self._stops: dict[str, _Stop] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._stops

    def forget(self, job_id: str) -> None:
        """Say that a job is over."""
        self._stops.pop(job_id, None)

    def go_on(self, job: JobFolder, pid: int, *, at_once: bool) -> None:
        """Go on with the phase that is due.

        Args:
            job: that was asked to stop.
            pid: of its worker, which lives.
            at_once: it is not to finish its step.
        """
        now = time.monotonic()
        stop, far = self._stops.setdefault(job.id, _Stop(asked=now)), job.machine
        if stop.termed is None:
            if at_once or (now - stop.asked > ASK_SECONDS and not far):
                os.kill(pid, signal.SIGTERM)
                stop.termed = now
        elif not stop.killed and now - stop.termed > (FAR_SECONDS if far else TERM_SECONDS):
            kill_all(job.path, pid)
            stop.killed = True


def may_go_on(job: JobFolder) -> str:
    """What to do about a job whose process here is gone, and that may go on elsewhere.

    Args:
        job: at a service or on another machine.
    """
    if not job.machine:
        return _THERE
    return f"It may still be running on {job.machine}; resume it here to follow it again, then stop it"
