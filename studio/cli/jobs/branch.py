"""`studio jobs branch` and `extend`: a new run that begins at a checkpoint of another one."""

from __future__ import annotations

from typing import Annotated

import typer

from studio.cli.output import say
from studio.cli.work.train import Job, Json, Name, Sets, answer_queued, checked_run, say_plan
from studio.config import RunConfig
from studio.config.load import build, run_of
from studio.jobs import JobFolder, find_job
from studio.jobs.actions.branching import (
    branch,
    check_changes,
    extended,
    find_checkpoint,
    find_end,
    require_same_files,
    require_training,
)
from studio.jobs.store.checkpoints import Checkpoint
from studio.jobs.store.folder import free_name, require_free
from studio.jobs.store.request import MODEL_KINDS
from studio.settings import read_settings


def add_to(group: typer.Typer) -> None:
    """Register the commands."""
    group.command("branch")(branch_off)
    group.command("extend")(extend)


def branch_off(
    job_id: Job,
    step: Annotated[int | None, typer.Option("--step", help="Step of the checkpoint; by default the last one.")] = None,
    sets: Sets = [],  # noqa: B006 - typer's way to declare a repeatable option
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Queue a run that begins at a checkpoint of another one, with some options changed."""
    job = find_job(read_settings().jobs, job_id, MODEL_KINDS)
    require_training(job, "Name a training run")
    raw = build(RunConfig, job.request.config, "job.yaml").model_dump()
    _begin(job, find_checkpoint(job, step), run_of(raw, sets, "--set", say), name, as_json)


def extend(
    job_id: Job,
    epochs: Annotated[float, typer.Option("--epochs", help="Additional epochs.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Queue a run that continues from another run's last checkpoint for more epochs."""
    job = find_job(read_settings().jobs, job_id, MODEL_KINDS)
    require_training(job, "Name a training run")
    _begin(job, find_end(job), extended(job, epochs), name, as_json)


def _begin(job: JobFolder, checkpoint: Checkpoint, config: RunConfig, name: str, as_json: bool) -> None:
    """Check the new run as any other, then queue it."""
    settings = read_settings()
    if name:
        require_free(settings.jobs, name)
    check_changes(job, config)  # before the data are counted, which takes its time
    require_same_files(job, settings)
    checked = checked_run(config)
    say_plan(checked, f"begins at step {checkpoint.step} of {job.name}: ")
    wanted = name or free_name(settings.jobs, f"{job.name}-from-{checkpoint.step}")
    made = branch(settings, job, checkpoint, wanted, checked.config, checked.plan.steps)
    answer_queued(as_json, made, checked)
