"""A model that an option names: a run of the studio by name or id, or a folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.foreign import as_path
from studio.jobs import JobFolder, find_job, list_jobs
from studio.jobs.store.finding import job_of_id
from studio.jobs.store.request import MODEL_KINDS
from studio.models.catalog.names import ModelRef, require_path
from studio.models.plan.browse import Offer
from studio.settings import Settings

_OFFERED = 50


def find_model(text: str, settings: Settings, where: str) -> Path:
    """Return the folder of a trained model or adapter.

    Args:
        text: name or id of a run, or a path; one that is relative to the working directory has a slash (./adapter).
        settings: whose runs.
        where: the option, for errors.

    Raises:
        InputError: neither exists, or the run has saved no model yet.
    """
    folder = as_path(require_path(text, where))
    if ("/" in text or folder.is_absolute()) and folder.is_dir() and not (folder / "job.yaml").is_file():
        return folder.absolute()
    try:
        run = find_job(settings.jobs, text, MODEL_KINDS)
    except InputError as error:
        fix = f"Write ./{text} for the folder with this name" if "/" not in text and folder.is_dir() else error.fix
        raise InputError(f"there is no run or folder '{text}'", where=where, fix=fix) from error
    if not any((run.model / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise InputError(
            f"run '{run.request.name}' has saved no model (it is {run.state().status})", where=where,
            fix="Wait until it is done, or choose another run",
        )  # fmt: skip
    return run.model


def base_of(reference: ModelRef, settings: Settings) -> dict[str, str]:
    """Return what a run records of its base model: name, path and source, and of a run's or merge's model its id.

    Args:
        reference: the base model.
        settings: whose runs.
    """
    recorded = {"name": reference.name, "path": str(reference.path), "source": reference.source}
    if reference.path.name != "model" or reference.path.parent.parent != settings.jobs:
        return recorded
    run = job_of_id(settings.jobs, reference.path.parent.name)
    return recorded if run is None else recorded | {"name": run.shown, "run": run.id}


def whole_runs(jobs: Iterable[JobFolder], limit: int) -> Iterator[JobFolder]:
    """Yield the runs and merges whose result is a whole model that can be trained further.

    Args:
        jobs: in the order that is wanted; those that are not over, or left an adapter, are passed over.
        limit: so many at most.
    """
    found = (
        job
        for job in jobs
        if (job.model / "config.json").is_file()
        and not (job.model / "adapter_config.json").is_file()
        and job.state().final
        and job.heading[0] in MODEL_KINDS
        and not job.scores
    )
    return itertools.islice(found, limit)


def run_offers(settings: Settings) -> list[dict[str, Any]]:
    """List the newest whole runs and merges as `models.plan.browse.listed` lists models, by name, or id where another
    one has the name.
    """
    offers: dict[str, Offer] = {}
    for run in whole_runs(list_jobs(settings.jobs), _OFFERED):
        name = run.id if run.shown in offers else run.shown
        size = sum(file.stat().st_size for file in run.model.glob("*.safetensors"))
        offers[name] = Offer(name, "Runs and merges", None, size, "ready")
    return [asdict(one) | {"memory": ""} for one in offers.values()]


def whole_run(text: str, settings: Settings) -> JobFolder | None:
    """Return the run that `model.path` names, whose model is trained further; None where it names no run.

    Args:
        text: the option.
        settings: whose runs.

    Raises:
        InputError: the run has only an adapter, or no model.
    """
    if text == EMBEDDED_MODEL or "/" in text:
        return None
    try:
        run = find_job(settings.jobs, text, MODEL_KINDS)
    except InputError:
        return None  # no run; what it is instead is told by the models' catalogue
    find_model(text, settings, "model.path")  # which refuses a run without a model
    if not (run.model / "adapter_config.json").is_file():
        return run
    raise InputError(
        f"run '{run.request.name}' made an adapter, which is no model by itself", where="model.path",
        fix=f"Set tuning.adapter to {text}, or merge it into a model of its own (studio merge)",
    )  # fmt: skip
