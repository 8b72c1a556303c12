"""What `studio jobs` does with waiting jobs and with devices: move, edit, duplicate, devices."""

from __future__ import annotations

import copy
from typing import Any, get_args

from studio.cli.output import answer, say, table
from studio.cli.train import checked_run
from studio.config import RunConfig
from studio.config.load import apply_set, build
from studio.errors import InputError
from studio.jobs import JobFolder, ensure_supervisor, list_jobs, submit
from studio.jobs.devices import list_devices
from studio.jobs.folder import folder_name, free_name, taken_names
from studio.jobs.queue import Move, move, require_unbegun, rewrite
from studio.jobs.state import ACTIVE
from studio.settings import Settings


def change(
    settings: Settings, job: JobFolder, action: str, *, place: str, sets: list[str], name: str, as_json: bool
) -> None:
    """Move, edit or duplicate a job, and say what it is then.

    Raises:
        InputError, StudioError: something that was asked for cannot be done; nothing was changed.
    """
    if action == "move":
        if place not in get_args(Move):
            raise InputError("'studio jobs move' needs a place", fix=f"Give one of {', '.join(get_args(Move))}")
        found = move(settings, job, place)  # type: ignore[arg-type]  # one of its words, as was just checked
        ensure_supervisor(settings)
        answer(as_json, {"id": job.id, "place": found}, f"{job.id} is number {found} in the line")
    elif action == "edit":
        _edit(settings, job, sets, as_json)
    else:
        _duplicate(settings, job, sets, name, as_json)


def _edit(settings: Settings, job: JobFolder, sets: list[str], as_json: bool) -> None:
    if not sets:
        raise InputError("'studio jobs edit' needs a change", fix="Give it like --set training.epochs=3")
    require_unbegun(job)
    checked = checked_run(_config(job, sets))
    say(checked.plan.line())
    rewrite(settings, job, checked.config.model_dump(mode="json"))
    answer(as_json, {"id": job.id, "path": str(job.path), "status": "queued"}, f"{job.id} has its new settings")


def _duplicate(settings: Settings, job: JobFolder, sets: list[str], name: str, as_json: bool) -> None:
    if name and folder_name(name) in taken_names(settings.jobs):
        raise InputError(f"there is a run '{name}' already", where="--name", fix="Take another one, or leave it out")
    checked = checked_run(_config(job, sets))
    say(checked.plan.line())
    name = name or free_name(settings.jobs, job.request.name)
    made = submit(settings, "train", name, checked.config.model_dump(mode="json"))
    answer(as_json, {"id": made.id, "path": str(made.path), "status": "queued"}, f"{made.id} is queued")


def _config(job: JobFolder, sets: list[str]) -> RunConfig:
    """The settings of a training, with the changes that were asked for."""
    if job.request.kind != "train":
        raise InputError(f"'{job.request.name}' is no training", where=job.id, fix="Ask for it again as a new job")
    raw: dict[str, Any] = copy.deepcopy(job.request.config)
    for item in sets:
        apply_set(raw, item)
    return build(RunConfig, raw, f"{job.id}/job.yaml")


def devices(settings: Settings, as_json: bool) -> None:
    """List the devices that jobs may use, with what runs on each."""
    states = [(job.request.name, job.state()) for job in list_jobs(settings.jobs)]
    values, rows = [], []
    for device in list_devices(settings):
        on = [name for name, state in states if state.status in ACTIVE and state.device == device.name]
        values.append({"name": device.name, "title": device.title, "jobs_at_once": device.slots, "running": on})
        rows.append((device.name, device.title, device.slots, ", ".join(on) or "–"))
    answer(as_json, {"devices": values}, table("device", "what it is", "jobs at once", "running", rows=rows))
