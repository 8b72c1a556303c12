"""The run that Chat, Export and Evaluate work on, and the jobs that were made of it.

The list at the left may select an evaluation or an export too: then the run it belongs to is meant. Everything
is looked up in the job folders each time; nothing is remembered between requests.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL
from studio.data.files.datafiles import resolve_path
from studio.data.readers.kinds import kind_by_name
from studio.errors import InputError, StudioError
from studio.foreign import unusable_path
from studio.jobs import JobFolder, find_job
from studio.jobs.store.finding import job_of_id
from studio.jobs.store.request import ANSWERING_KINDS, ELSEWHERE_KINDS, MODEL_KINDS, Kind
from studio.remote.record import read_record
from studio.settings import Settings
from studio.train.runs import whole_run
from studio.ui.server.services import Services

RowsChoice = tuple[str, str]


def selected_run(settings: Settings, job_id: str) -> JobFolder | None:
    """Return the training run that a selection means; None when nothing (or a removed job) is selected."""
    try:
        job = find_job(settings.jobs, _id(settings, job_id)) if job_id else None
        if job is not None and job.request.kind not in ANSWERING_KINDS:
            job = find_job(settings.jobs, _id(settings, str(job.request.config.get("run", ""))), ANSWERING_KINDS)
    except StudioError:
        return None
    return job


def base_run(services: Services, path: str) -> JobFolder | None:
    """Return the run or merge that `model.path` names, whose model is trained further; None where it names none.

    Args:
        services: whose list knows the names: to read those of all jobs of a large home takes seconds.
        path: the option, as typed.

    Raises:
        InputError: the run has only an adapter, or no model.
    """
    text, settings = path.strip(), services.settings
    if not text or text == EMBEDDED_MODEL or "/" in text or unusable_path(text) or Path(text).is_dir():
        return None
    rows = [row for row in services.book.rows() if row["kind"] in MODEL_KINDS]
    for key in ("id", "name", "asked_name"):  # as `find_job` looks for them
        found = next((row for row in rows if row[key] == text), None)
        if found is not None:
            return whole_run(found["id"], settings)
    return None


def run_of_model(settings: Settings, path: str) -> JobFolder | None:
    """Return the run of this home whose model a folder is; None for any other folder."""
    folder = Path(path)
    if folder.name != "model" or folder.parent.parent != settings.jobs:
        return None
    return job_of_id(settings.jobs, folder.parent.name)


def selected_model(settings: Settings, job_id: str) -> str:
    """Return the model, which no run made, that a selected export was made of; "" for any other selection.

    Args:
        settings: of the home.
        job_id: of the selected job; empty for none.
    """
    try:
        job = find_job(settings.jobs, _id(settings, job_id), "export") if job_id else None
    except StudioError:
        return ""
    made_of = str(job.request.config.get("run", "")) if job is not None else ""
    elsewhere = "/" in made_of or made_of == EMBEDDED_MODEL
    return made_of if elsewhere and selected_run(settings, job_id) is None else ""


def exports_of(services: Services, model: str) -> list[JobFolder]:
    """Return the exports of a model that no run made, newest first.

    Args:
        services: whose list knows what each job works on.
        model: its folder or name, as an export keeps it.
    """
    return [job for job, asked in services.book.works("export") if asked == model]


def has_model(run: JobFolder) -> bool:
    """True when a run left a model that answers: it completed, or it was stopped and had saved one."""
    if run.scores:
        return False
    if is_elsewhere(run):
        return run.state().final and bool(read_record(run).tuned)
    return (run.state().final and (run.model / "config.json").exists()) or (
        run.state().final and (run.model / "adapter_config.json").exists()
    )


def is_elsewhere(run: JobFolder) -> bool:
    """True when a run's model is at a service: it answers, and there are no weights here."""
    try:
        return run.heading[0] in ELSEWHERE_KINDS
    except InputError:  # a folder that is not ours: whatever is done to it says so
        return False


def require_model(settings: Settings, job_id: str) -> JobFolder:
    """Return the selected run.

    Raises:
        InputError: no run is selected, or it has no model (yet).
    """
    run = selected_run(settings, job_id)
    if run is None:
        raise InputError("no run is selected", fix="Pick a finished run in the list at the left")
    state = run.state()
    if not state.final:
        raise InputError(f"'{run.name}' is still {state.status}", fix="Wait until it is done, or stop it and save")
    if run.scores:
        raise InputError(
            f"'{run.name}' trained a reward model, which scores completions and cannot generate",
            fix="Pick a run of another method; PPO and GRPO can use this one",
        )
    if not has_model(run):
        raise InputError(
            f"'{run.name}' {state.status} without saving a model", fix="Pick another run, or start it again"
        )
    return run


def jobs_of(services: Services, run: JobFolder, kind: Kind) -> list[JobFolder]:
    """Return the evaluations or exports of a run, newest first.

    Args:
        services: whose list knows what each job works on: to read all jobs of a large home takes seconds.
        run: a training run.
        kind: evaluate or export.
    """
    works = services.book.works(kind)
    meant = {run.id, str(run.path)}
    # A name means the newest run of that name, as in `find_job`; jobs of the page carry the id.
    named = any(asked == run.request.name for _, asked in works)
    if named and _newest_named(services.settings, run.request.name) == run.id:
        meant.add(run.request.name)
    return [job for job, asked in works if asked in meant]


def when(job: JobFolder) -> str:
    """Local time at which a job was made, for a list: '24 Nov 15:30'."""
    return time.strftime("%d %b %H:%M", time.localtime(job.state().created)).lstrip("0")


def rows_choices(settings: Settings, run: JobFolder | None, demo_test: str) -> list[RowsChoice]:
    """Return (label, path) of files whose rows have answers: the demo's, the run's validation file, uploads.

    Args:
        settings: of the home whose uploads are offered.
        run: the selected one; None where none is, so that no validation file is offered.
        demo_test: path of the demo's test rows.
    """
    choices = [("Demo test rows", demo_test)]
    validation = _section(run, "data").get("validation") if run is not None else None
    if isinstance(validation, str) and not _is_number(validation):
        choices.append((f"{Path(validation).name} (validation)", validation))
    if settings.uploads.is_dir():
        uploads = sorted(
            path for path in settings.uploads.rglob("*") if kind_by_name(path.name) in ("json", "csv", "tsv")
        )
        choices += [(path.name, str(path)) for path in uploads]
    return choices


def rows_path(settings: Settings, path: str) -> str:
    """Return the file that the page named, if it may be read from the page.

    Raises:
        InputError: there is none, or it lies outside the studio's folders.
    """
    found = resolve_path(path, settings, confined=True)
    return path if path.strip().startswith("demo/") else str(found)


def _section(run: JobFolder, name: str) -> dict[str, Any]:
    section = run.training.get(name)
    return section if isinstance(section, dict) else {}


def _newest_named(settings: Settings, wanted: str) -> str:
    try:
        return find_job(settings.jobs, _id(settings, wanted), ANSWERING_KINDS).id if wanted else ""
    except StudioError:
        return ""


def _id(settings: Settings, text: str) -> str:
    """Return an id or name; a path (as `studio evaluate PATH` records it) only where it is a job of this home.

    `find_job` would follow any absolute path, and a selection comes from the browser.
    """
    path = Path(text)
    if path.parent == settings.jobs:
        return path.name
    return "" if path.is_absolute() else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
