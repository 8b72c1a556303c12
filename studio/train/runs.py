"""A model that an option names: a run of the studio by name or id, or a folder."""

from __future__ import annotations

from pathlib import Path

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.jobs import JobFolder, find_job
from studio.jobs.store.request import MODEL_KINDS
from studio.models.catalog.names import require_path
from studio.settings import Settings


def find_model(text: str, settings: Settings, where: str) -> Path:
    """Return the folder of a trained model or adapter.

    Args:
        text: name or id of a run, or a path; one that is relative to the working directory has a slash (./adapter).
        settings: whose runs.
        where: the option, for errors.

    Raises:
        InputError: neither exists, or the run has saved no model yet.
    """
    folder = require_path(text, where).expanduser()
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
