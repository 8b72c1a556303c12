"""Sending a run to a rented machine: the smallest GPU is found, and the task is written."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from studio.config import RunConfig
from studio.config.launch import SKYPILOT, SkyConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.errors import InputError
from studio.jobs.store.folder import folder_name
from studio.launch.sky.sizing import size
from studio.launch.sky.task import Task, write_task
from studio.models.plan.making import Plan
from studio.private import make_home
from studio.settings import Settings
from studio.train.preflight import Progress

#: Below the home: a folder for each task.
FOLDER = "sky"


def prepare(
    settings: Settings, name: str, run: RunConfig, given: dict[str, Any], on_progress: Progress
) -> tuple[Task, Plan]:
    """Write the task of a run, and return it with the run's plan on the machine.

    Args:
        settings: of this home.
        name: of the run.
        run: what is trained.
        given: options of `SkyConfig`.
        on_progress: told (what, done, total) of the slow parts.

    Raises:
        InputError, StudioError: the run cannot be trained, or not on a single GPU.
    """
    config = build(SkyConfig, {**given, "to": SKYPILOT}, "studio launch")
    slug = folder_name(name)
    if not slug:
        raise InputError(f"'{name}' is not a name", where="name", fix="Use at least one letter or digit")
    with contextlib.closing(DataWorker(settings)) as worker:
        run, plan, gigabytes = size(run, settings, worker, on_progress)
    make_home(settings.home)
    folder = settings.home / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"
    return write_task(settings, name, run, plan, gigabytes, config, folder), plan
