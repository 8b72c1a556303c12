"""Queueing a run that was prepared here for other machines; or leaving it for a person to start by resuming it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.jobs import JobFolder, ensure_supervisor
from studio.jobs.actions.queue import queue_lock
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from studio.settings import Settings


def queue_run(
    settings: Settings, name: str, raw: dict[str, Any], *, fill: Callable[[JobFolder], None],
    place: dict[str, Any] | None = None, held: dict[str, str] | None = None,
) -> JobFolder:  # fmt: skip
    """Make a run's job.

    Args:
        settings: of this home.
        name: of the run.
        raw: what is trained.
        fill: writes what else its folder needs before anybody sees it.
        place: where it runs; None for here.
        held: why it stays stopped, and what starts it (`reason`, `fix`); None queues it.
    """
    with queue_lock(settings.home):
        job = create_job(settings.jobs, "train", name, raw, place=place, fill=fill)
        if held is not None:
            write_state(job.state_path, job.state().with_(status="stopped", **held))
    if held is None:
        ensure_supervisor(settings)
    return job
