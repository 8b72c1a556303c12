"""A model that an option names: a run of the studio by name or id, or a folder."""

from __future__ import annotations

from pathlib import Path

from studio.errors import InputError
from studio.jobs import find_job
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
        run = find_job(settings.jobs, text, "train")
    except InputError as error:
        fix = f"Write ./{text} for the folder with this name" if "/" not in text and folder.is_dir() else error.fix
        raise InputError(f"there is no run or folder '{text}'", where=where, fix=fix) from error
    if not any((run.model / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise InputError(
            f"run '{run.request.name}' has saved no model (it is {run.state().status})", where=where,
            fix="Wait until it is done, or choose another run",
        )  # fmt: skip
    return run.model
