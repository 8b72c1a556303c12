"""Going on from a checkpoint: in place, or as a new run with changed options or for more epochs.

A new run gets the checkpoint and the curves until there into its own folder, so the other run stays as it is and
may be removed. What a checkpoint holds (weights, optimizer state, place in the data) fits only the model, data and
batch that made it: those cannot change. With other rows a run would go on at another place without a word, or be over
at once, so the worker records the SHA-256 of every source; a branch takes it along.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.describe import options_of, value_at
from studio.config.load import build
from studio.data.sources.locate import is_hub_source, locate, sources_of
from studio.errors import InputError, InputErrors
from studio.jobs.actions.client import ensure_supervisor, wait
from studio.jobs.store.checkpoints import BEST, Checkpoint, best_step, last_whole, whole
from studio.jobs.store.events import EventWriter, read_events
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import JobFolder, create_job
from studio.jobs.store.joblock import job_locked
from studio.jobs.store.request import Branch
from studio.jobs.store.state import JobState, write_state
from studio.jobs.views.summary import Summaries
from studio.settings import Settings

FIXED = (
    "model", "data", "tuning", "method.name", "method.train_on", "method.documents", "method.num_generations",
    "method.ppo_epochs", "training.batch_size", "training.optimizer", "training.seed", "training.engine",
)  # fmt: skip
# Before a run is put in the line, a larger source is compared by its size alone: the worker reads all of it anyway.
QUICK_BYTES = 1_000_000_000
# So long a supervisor may take to start and to see that a worker is dead.
BURY_SECONDS = 60.0


def resume(settings: Settings, job: JobFolder) -> Checkpoint:
    """Let a training that ended early go on from its last whole checkpoint, in the same folder.

    Returns:
        the checkpoint.

    Raises:
        InputError: it is no training, is not over, is done, left no whole checkpoint, or its data have changed.
    """
    name = job.request.name
    if (state := job.state()).pid is not None and not state.final and not state.alive():
        ensure_supervisor(settings)  # it was killed with the worker: another one writes how that ended
        wait(job, seconds=BURY_SECONDS)
    with job_locked(job.path, ".resume.lock", f"'{name}' cannot be resumed now"):
        state = job.state()
        require_training(job, "Start it again")
        if not state.final:
            raise InputError(
                f"'{name}' has not finished ({state.status})", where=job.id, fix="Wait until it has, or stop it"
            )
        if state.status == "completed":
            raise InputError(f"'{name}' is done", where=job.id, fix="Start another run, with more epochs")
        checkpoint = last_whole(job.checkpoints)
        if job.request.place is not None:  # it goes on from what the other machine has, with the data that lie there
            checkpoint = checkpoint or Checkpoint(job.checkpoints, 0, {})
        elif checkpoint is None:
            raise InputError(f"'{name}' has no usable checkpoint", where=job.id, fix="Start it again as a new run")
        else:
            require_same_files(job, settings)
        job.stop_path.unlink(missing_ok=True)
        again = JobState(status="queued", created=state.created, attempt=state.attempt + 1)
        write_state(job.state_path, again)
    ensure_supervisor(settings)
    return checkpoint


def require_training(job: JobFolder, fix: str) -> None:
    """Refuse a job that has no checkpoints and no settings of a training.

    Args:
        job: of any kind.
        fix: what to do instead, for jobs other than merges.

    Raises:
        InputError: it is no training.
    """
    if job.request.kind == "merge":
        raise InputError(
            f"'{job.name}' is a merge, which has no checkpoints and no training settings", where=job.id,
            fix=f"Train on its model with model.path={job.name}, or merge again with 'studio merge'",
        )  # fmt: skip
    if job.request.kind != "train":
        raise InputError(f"'{job.request.name}' is not a training run", where=job.id, fix=fix)


def find_checkpoint(job: JobFolder, step: int | None = None) -> Checkpoint:
    """Find the whole checkpoint of a run at `step`, or its last one.

    Raises:
        InputError: it is no training, or there is no such checkpoint; the steps that there are are named.
    """
    name = job.request.name
    require_training(job, "Name a training run")
    found = whole(job.checkpoints)
    if not found:
        raise InputError(f"'{name}' has no usable checkpoint", where=job.id, fix="Start a new run instead")
    if step is None:
        return found[-1]
    for one in found:
        if one.step == step:
            return one
    steps = ", ".join(str(one.step) for one in found)
    raise InputError(f"'{name}' has no usable checkpoint at step {step}", where=job.id, fix=f"Available: {steps}")


def find_end(job: JobFolder) -> Checkpoint:
    """Find the checkpoint from which a run is extended: its last one, which must be that of the end once it is done.

    Raises:
        InputError: as `find_checkpoint`, or the last one was not kept (training.keep_checkpoints).
    """
    checkpoint = find_checkpoint(job)
    last = Summaries().of(job).step if job.state().status == "completed" else 0
    if checkpoint.step < last:
        raise InputError(
            f"'{job.request.name}' ended at step {last}, and its last checkpoint was removed",
            where=job.id,
            fix=f"Branch from step {checkpoint.step}, or start a new run with this one's model as 'tuning.adapter'",
        )
    return checkpoint


def check_changes(job: JobFolder, config: RunConfig) -> None:
    """Refuse a change that the checkpoints of `job` do not fit.

    Raises:
        InputErrors: one sentence for each option that cannot change here.
    """
    before = build(RunConfig, job.request.config, "job.yaml").model_dump()
    after = config.model_dump()
    used = [spec for spec in options_of(RunConfig) if spec.applies(config.method.name, config.tuning.name)]
    wrong = [
        spec.path
        for spec in used
        if any(spec.path == fixed or spec.path.startswith(f"{fixed}.") for fixed in FIXED)
        and value_at(before, spec.path) != value_at(after, spec.path)
    ]
    if wrong:
        fix = "Start a new run; with 'tuning.adapter' it continues from this run's adapter"
        what = "cannot change at a checkpoint, which works only with its original value"
        raise InputErrors([InputError(f"{name} {what}", where=name, fix=fix) for name in wrong])


def require_length(step: int, steps: int) -> None:
    """Refuse a run of so many `steps` in all that is to begin at `step`.

    Raises:
        InputError: it would be over there.
    """
    if steps <= step:
        raise InputError(
            f"with {steps} steps the run would end at step {step}, where it should start",
            where="training.epochs",
            fix="Set more epochs, or a larger training.max_steps if it is set",
        )


def branch(
    settings: Settings, job: JobFolder, checkpoint: Checkpoint, name: str, config: RunConfig, steps: int
) -> JobFolder:
    """Queue a run that begins at a checkpoint of another one.

    Args:
        settings: the studio's settings.
        job: the run whose checkpoint it is.
        checkpoint: of `find_checkpoint`.
        name: the new run's name.
        config: its checked config.
        steps: updates of the new run in all, as its plan says.

    Raises:
        InputError: an option was changed that cannot change, a data file has changed, or the run would end before it
            begins.
        OSError: the disk is full; nothing is left of the new run.
    """
    check_changes(job, config)
    require_length(checkpoint.step, steps)
    require_same_files(job, settings)

    def fill(made: JobFolder) -> None:
        _share(checkpoint.path, made)
        _share_best(job, made, checkpoint.step)
        if sources := recorded_sources(job):  # so that the new run, too, refuses other data
            write_json(made.environment_path, {"data": {"sources": sources}})
        writer = EventWriter(made.events_path)
        for event in history(job.events_path, checkpoint.step):
            writer.write(
                event.pop("kind"), **{key: value for key, value in event.items() if key not in ("seq", "time")}
            )
        writer.close()

    made = create_job(
        settings.jobs, "train", name, config.model_dump(mode="json"), branch=Branch(job.id, checkpoint.step), fill=fill
    )
    ensure_supervisor(settings)
    return made


def extended(job: JobFolder, epochs: float) -> RunConfig:
    """Return the config with which a run is gone on with for `epochs` more.

    The schedule is that of the longer run: the rate begins where that one stands after the steps that are made.

    Raises:
        InputError: the run's length is not given in epochs, or `epochs` is not above 0.
    """
    config = build(RunConfig, job.request.config, "job.yaml")
    if not epochs > 0:
        raise InputError(f"{epochs:g} more epochs is not an extension", where="epochs", fix="Use a number above 0")
    if config.training.max_steps:
        raise InputError(
            f"'{job.request.name}' ends after {config.training.max_steps} steps, regardless of the epochs",
            where="training.max_steps",
            fix="Branch from its last checkpoint with a larger training.max_steps",
        )
    raw = config.model_dump()
    raw["training"]["epochs"] = config.training.epochs + epochs
    return build(RunConfig, raw, "epochs")


def recorded_sources(job: JobFolder) -> list[dict[str, Any]]:
    """Return what the worker recorded of the sources, in their order; none before it read them."""
    data = job.environment().get("data")
    found = data.get("sources") if isinstance(data, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def require_same(recorded: Sequence[dict[str, Any]], now: Sequence[tuple[str, str]]) -> None:
    """Refuse to go on with other data.

    Args:
        recorded: of `recorded_sources`.
        now: path and SHA-256 of each source as it is, in the same order.

    Raises:
        InputError: one of them has changed; it is named.
    """
    for before, (path, sha256) in zip(recorded, now, strict=False):
        if before.get("sha256") not in (None, sha256):
            raise _changed(path, f"its SHA-256 was {str(before['sha256'])[:12]} and is {sha256[:12]}")


def require_same_files(job: JobFolder, settings: Settings) -> None:
    """Refuse early to go on with a file that has changed, as far as a look costs little.

    Raises:
        InputError: a file has changed or is gone.
    """
    recorded = recorded_sources(job)
    if not recorded:
        return
    config = build(RunConfig, job.request.config, "job.yaml")
    for before, source in zip(recorded, sources_of(config.data), strict=False):
        if is_hub_source(source.path, settings):
            continue
        found = locate(source, settings)
        if before.get("bytes") not in (None, found.bytes):
            raise _changed(source.path, f"it had {before['bytes']:,} bytes and has {found.bytes:,}")
        if found.bytes <= QUICK_BYTES:
            require_same([before], [(source.path, found.sha256())])


def history(events: Path, step: int) -> list[dict[str, Any]]:
    """Metrics and samples of a run until `step`, without what a resumed run made twice."""
    kept: list[dict[str, Any]] = []
    offset = 0
    while True:
        page, following = read_events(events, offset)
        for event in page:
            if event["kind"] == "resume":
                kept = [one for one in kept if one["step"] <= event["step"]]
            elif event["kind"] in ("metric", "sample") and event.get("step", step + 1) <= step:
                kept.append(event)
        if following == offset:
            return kept
        offset = following


def _changed(path: str, how: str) -> InputError:
    return InputError(
        f"the data has changed since the checkpoint was saved ({how})",
        where=path,
        fix="Restore the file, or start a new run; 'tuning.adapter' can continue from this run's adapter",
    )


def _share(checkpoint: Path, made: JobFolder) -> None:
    shutil.copytree(checkpoint, made.checkpoints / checkpoint.name, copy_function=_link_or_copy, symlinks=True)


def _share_best(job: JobFolder, made: JobFolder, step: int) -> None:
    """Take the best checkpoint until `step` along: what comes later may be worse, and then it is still the best."""
    best = best_step(job.checkpoints)
    found = next((one for one in whole(job.checkpoints) if one.step == best), None)
    if found is None or found.step > step:
        return
    if found.step < step:
        _share(found.path, made)
    shutil.copy2(job.checkpoints / BEST, made.checkpoints / BEST)


def _link_or_copy(source: str, target: str) -> str:
    """Share a checkpoint's file, which nobody writes again; another disk gets a copy."""
    try:
        os.link(source, target)
        return target
    except OSError:
        return str(shutil.copy2(source, target))
