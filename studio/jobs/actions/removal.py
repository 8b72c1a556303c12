"""Removing jobs, or only their checkpoints: what is asked before, and how it is done.

A folder is first renamed to `.trash-…` inside the folder of jobs and then removed, so a removal that is cut off
never leaves half a job in the list; what is left over goes with the next start. Only jobs that are over are removed,
and symbolic links are removed, never followed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from studio.errors import InputError, StudioError
from studio.jobs.store.checkpoints import last_whole
from studio.jobs.store.finding import list_jobs
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.joblock import GoneError, job_locked
from studio.jobs.views.disk import gigabytes, measure
from studio.reach import open_in
from studio.settings import Settings

What = Literal["job", "checkpoints"]
TRASH = ".trash-"
_NAMED = 5


@dataclass(frozen=True)
class Question:
    """What a person is asked before something is removed for good.

    Attributes:
        title: the question.
        lines: what is lost, and what else refers to it.
        freed: bytes that it frees.
        refused: why some of the jobs cannot be removed; nothing is removed then.
    """

    title: str
    lines: list[str]
    freed: int
    refused: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def removal_question(settings: Settings, jobs: Sequence[JobFolder], what: What) -> Question:
    """Work out what the removal of some jobs, or of their checkpoints, would mean.

    Args:
        settings: of the home.
        jobs: the chosen ones; named twice counts once.
        what: `job` for whole folders, `checkpoints` for those alone.
    """
    everything = list_jobs(settings.jobs)
    jobs = list({job.id: job for job in jobs}.values())
    leaving = {job.id for job in jobs}
    refused: list[str] = []
    lines = [f"Chosen: {_first([f'{_shown(job)} ({job.id})' for job in jobs])}."]
    going: list[Path] = []
    for job in jobs:
        try:
            _require_removable(settings, job)
        except InputError as error:
            refused.append(error.sentence)
            continue
        going.append(job.path if what == "job" else job.checkpoints)
        users = [user for user in everything if user.id not in leaving and refers(user, job)]
        if what == "checkpoints":
            users = [user for user in users if _texts_within(user, job.checkpoints)]
            lines += _lost_with_checkpoints(job)
        live = [user for user in users if not user.state().final]
        if live:
            refused.append(
                f"{_shown(live[0])} needs {_shown(job)} and has not finished. Wait until it has, or stop it."
            )
        elif users:
            few = "was created from it and stays" if len(users) == 1 else "were created from it and stay"
            lines.append(f"{_shown(job)}: {_listed(users)} {few}, without what lies there.")
        exports = sorted(path.name for path in job.exports.iterdir() if path.is_file()) if job.exports.is_dir() else []
        if what == "job" and exports:
            lines.append(f"{_shown(job)} holds exported files: {_first(exports)}.")
    names = _shown(jobs[0]) if len(jobs) == 1 else f"{len(jobs)} jobs"
    subject = names if what == "job" else f"the checkpoints of {names}"
    freed = measure(*going).freed
    size = gigabytes(freed)
    return Question(f"Delete {subject} permanently ({size})?", [f"This frees {size}.", *lines], freed, refused)


def remove_job(settings: Settings, job: JobFolder) -> int:
    """Remove a job that is over, with everything in its folder.

    Returns:
        bytes that became free.

    Raises:
        InputError: it is not over, something that is not over needs it, or its folder is not in this home.
        StudioError: the disk refused; what is left goes with the next start.
    """
    return _remove(settings, job, "job")


def remove_checkpoints(settings: Settings, job: JobFolder) -> int:
    """Remove a job's checkpoints and keep its model; returns and raises as `remove_job`."""
    return _remove(settings, job, "checkpoints")


def empty_trash(jobs: Path) -> None:
    """Remove what an earlier removal left over; what cannot be removed now stays for the next time."""
    if jobs.is_dir():
        for path in jobs.glob(f"{TRASH}*"):
            shutil.rmtree(path, ignore_errors=True)


def refers(user: JobFolder, job: JobFolder) -> bool:
    """Whether a job was made from another one: it names its id, or a path in its folder."""
    # Any such path has the id in it: most of many jobs need not be parsed.
    if user.id == job.id or not any(job.id in _raw(path) for path in (user.path / "job.yaml", user.environment_path)):
        return False
    try:
        # The merge of a sweep that asks the models is none of which another one was made.
        config = {key: value for key, value in user.request.config.items() if key != "asked_by"}
    except InputError:
        return False
    return job.id in _texts(config) or _texts_within(user, job.path)


def _remove(settings: Settings, job: JobFolder, what: What) -> int:
    target = job.path if what == "job" else job.checkpoints
    # `resume` takes the same lock, so a job is not removed while it is being put in the line again.
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(job_locked(job.path, ".resume.lock", f"{_shown(job)} cannot be removed now"))
        except GoneError:  # by another page: it is as was asked
            return 0
        question = removal_question(settings, [job], what)
        if question.refused:
            raise InputError(question.refused[0])
        if not target.is_dir() or target.is_symlink():
            return 0
        trash = settings.jobs / f"{TRASH}{job.id}-{uuid.uuid4().hex[:8]}"
        os.replace(target, trash)
    try:
        shutil.rmtree(trash)
    except FileNotFoundError:
        pass  # a studio that was just started removes it as well
    except OSError as error:
        raise StudioError(
            f"it could not be removed completely ({error.strerror or error})", where=str(error.filename or trash),
            fix="It is no longer listed; the rest is removed at the next start",
        ) from error  # fmt: skip
    return question.freed


def _require_removable(settings: Settings, job: JobFolder) -> None:
    if job.path.parent.resolve() != settings.jobs.resolve() or job.path.is_symlink():
        raise InputError(
            f"{_shown(job)} is not in the studio's own jobs folder", where=str(job.path),
            fix="Remove its folder yourself",
        )  # fmt: skip
    state = job.state()
    if not state.final or state.alive():
        raise InputError(f"{_shown(job)} has not finished ({state.status})", fix="Stop it first")


def _lost_with_checkpoints(job: JobFolder) -> Iterator[str]:
    status, checkpoint = job.state().status, last_whole(job.checkpoints)
    if status != "completed" and checkpoint is not None:
        yield f"{_shown(job)} can then no longer be resumed from step {checkpoint.step}."
    if not any((job.model / name).is_file() for name in ("adapter_config.json", "config.json")):
        yield f"{_shown(job)} saved no model: its checkpoints are its only result."


def _texts_within(user: JobFolder, folder: Path) -> bool:
    """Whether a job's config or record names a path at or below `folder`."""
    record: dict[str, Any] = {}
    with contextlib.suppress(ValueError, OSError):
        record = user.environment()
    base = record.get("base_model") or {}
    texts = [*_texts(user.request.config), str(base.get("path") or "") if isinstance(base, dict) else ""]
    roots = {str(folder), str(folder.resolve())}
    return any(text == root or text.startswith(f"{root}/") for text in texts for root in roots)


def _raw(path: Path) -> str:
    with contextlib.suppress(OSError, InputError), open_in(path.parent, path.name) as file:
        return file.read().decode("utf-8", errors="replace")
    return ""


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {text for item in value for text in _texts(item)}
    return set()


def _shown(job: JobFolder) -> str:
    return f"'{job.shown}'"


def _listed(jobs: Sequence[JobFolder]) -> str:
    kinds = {"train": "the run", "evaluate": "the evaluation", "export": "the export", "merge": "the merge",
             "openai": "the job at OpenAI"}  # fmt: skip
    words = [f"{kinds.get(job.request.kind, 'the job')} {_shown(job)}" for job in jobs]
    return _first(words)


def _first(words: Sequence[str]) -> str:
    rest = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
