"""Preparing a run of several machines: it is checked and queued here, and the other machines' commands are told."""

from __future__ import annotations

import contextlib
from typing import Any

from studio.config import RunConfig
from studio.config.launch import TORCHRUN, TorchrunConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.errors import InputError
from studio.jobs import JobFolder
from studio.launch.queueing import queue_run
from studio.settings import Settings
from studio.train.preflight import Checked, Progress, check
from studio.train.ranks.machines import Asked, joining_line, write_asked


def launch(
    settings: Settings, name: str, run: RunConfig, given: dict[str, Any], start: bool, on_progress: Progress
) -> tuple[JobFolder, Checked, list[str]]:
    """Check the run for this machine's part of it, queue it here, and return the commands of the others.

    Args:
        settings: of this home, which all machines must see under the same path.
        name: of the run.
        run: what is trained.
        given: options of `TorchrunConfig`.
        start: False leaves the job stopped: resuming it starts it.
        on_progress: told (what, done, total) of the slow parts.

    Raises:
        InputError, StudioError: the run is one of a single machine, or cannot be done here.
    """
    config = build(TorchrunConfig, {**given, "to": TORCHRUN}, "studio launch")
    if run.training.nodes == 1:
        raise InputError(
            "this run uses one machine", where="training.nodes",
            fix="Set it to the number of machines: --set training.nodes=2; for one, use studio train",
        )  # fmt: skip
    if run.training.device_ids:
        raise InputError(
            f"training.devices lists the GPUs {run.training.devices}, which other machines may not have",
            where="training.devices", fix=f"Set it to {len(run.training.device_ids)}, for each machine",
        )  # fmt: skip
    with contextlib.closing(DataWorker(settings)) as worker:
        checked = check(run, settings, worker, fetch=True, on_progress=on_progress, one_of_several=True)
    asked = Asked(config.host, config.port, config.wait, by_hand=True)
    raw = checked.config.model_dump(mode="json")
    held = {"reason": "it was prepared but not started", "fix": "Resume the run to start it here"}
    job = queue_run(
        settings, name, raw, fill=lambda made: write_asked(made.path, asked), held=None if start else held
    )  # fmt: skip
    return job, checked, [joining_line(job.path, one, settings.home) for one in range(1, run.training.nodes)]
