"""`studio jobs branch` and `extend`: a new run that begins at a checkpoint of another one."""

from __future__ import annotations

from studio.cli.output import say
from studio.cli.train import checked_run
from studio.config import RunConfig
from studio.config.load import apply_set, build
from studio.jobs import JobFolder
from studio.jobs.branching import branch, check_changes, extended, find_checkpoint
from studio.settings import read_settings


def branch_off(job: JobFolder, step: int | None, sets: list[str], name: str) -> JobFolder:
    """Queue a run that begins at the checkpoint of `step` (the last one by default), with some options changed.

    Raises:
        InputError, StudioError: see `begin`.
    """
    raw = build(RunConfig, job.request.config, "job.yaml").model_dump()
    for item in sets:
        apply_set(raw, item)
    return begin(job, step, build(RunConfig, raw, "--set"), name)


def extend(job: JobFolder, epochs: float, name: str) -> JobFolder:
    """Queue a run that goes on with a run's result for so many more epochs.

    Raises:
        InputError, StudioError: see `begin`, or the run's length is not given in epochs.
    """
    return begin(job, None, extended(job, epochs), name)


def begin(job: JobFolder, step: int | None, config: RunConfig, name: str) -> JobFolder:
    """Check the new run as any other, then queue it.

    Raises:
        InputError, StudioError: there is no such checkpoint, an option does not fit it, or the run cannot be started.
    """
    checkpoint = find_checkpoint(job, step)
    check_changes(job, config)  # before the data are counted, which takes its time
    checked = checked_run(config)
    say(f"begins at step {checkpoint.step} of {job.request.name}: {checked.plan.line()}")
    wanted = name or f"{job.request.name}-from-{checkpoint.step}"
    return branch(read_settings(), job, checkpoint, wanted, checked.config, checked.plan.steps)
