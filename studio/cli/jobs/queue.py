"""`studio jobs` for what waits and where it runs: move, edit, duplicate, devices."""

from __future__ import annotations

import copy
from typing import Annotated, get_args

import typer

from studio.cli.output import answer, say, table
from studio.cli.work.train import Job, Json, Name, Sets, answer_queued, checked_run, say_plan
from studio.config import RunConfig
from studio.config.load import run_of
from studio.errors import InputError
from studio.jobs import JobFolder, ensure_supervisor, find_job, list_jobs, submit
from studio.jobs.actions.branching import require_training
from studio.jobs.actions.queue import Move, move, require_unbegun, rewrite
from studio.jobs.run.devices import list_devices
from studio.jobs.store.finding import find_own
from studio.jobs.store.folder import free_name, require_free
from studio.jobs.store.state import ACTIVE
from studio.settings import read_settings


def add_to(group: typer.Typer) -> None:
    """Register the commands."""
    for command in (place, edit, duplicate, devices):
        group.command("move" if command is place else None)(command)


def place(
    job_id: Job,
    to: Annotated[str, typer.Argument(metavar="PLACE", help=f"One of {', '.join(get_args(Move))}.")],
    as_json: Json = False,
) -> None:
    """Give a job that waits another place in the line."""
    settings = read_settings()
    if to not in get_args(Move):
        raise InputError(
            f"'{to}' is not a position", where="studio jobs move", fix=f"Give one of {', '.join(get_args(Move))}"
        )
    job = find_own(settings.jobs, job_id)
    found = move(settings, job, to)  # type: ignore[arg-type]  # one of its words, as was just checked
    ensure_supervisor(settings)
    answer(as_json, {"id": job.id, "place": found}, f"{job.id} is number {found} in the queue")


def edit(job_id: Job, sets: Sets = [], as_json: Json = False) -> None:  # noqa: B006 - typer's way
    """Give a run that waits other settings."""
    settings = read_settings()
    job = find_own(settings.jobs, job_id)
    if not sets:
        raise InputError("'studio jobs edit' needs a change", fix="Give it like --set training.epochs=3")
    require_unbegun(job)
    checked = checked_run(_config(job, sets))
    say_plan(checked)
    rewrite(settings, job, checked.config.model_dump(mode="json"), checked.plan.steps)
    answer_queued(as_json, job, checked, "has its new settings")


def duplicate(job_id: Job, sets: Sets = [], name: Name = "", as_json: Json = False) -> None:  # noqa: B006
    """Queue a new run with the whole settings of another one, some of them changed."""
    settings = read_settings()
    job = find_job(settings.jobs, job_id)
    if name:
        require_free(settings.jobs, name)
    checked = checked_run(_config(job, sets))
    say_plan(checked)
    name = name or free_name(settings.jobs, job.request.name)
    made = submit(settings, "train", name, checked.config.model_dump(mode="json"))
    answer_queued(as_json, made, checked)


def _config(job: JobFolder, sets: list[str]) -> RunConfig:
    """The settings of a training, with the changes that were asked for."""
    require_training(job, "Queue it again as a new job")
    return run_of(copy.deepcopy(job.request.config), sets, f"{job.id}/job.yaml", say)


def devices(as_json: Json = False) -> None:
    """List the devices that jobs may use, with what runs on each."""
    settings = read_settings()
    states = [(job, job.state()) for job in list_jobs(settings.jobs)]
    running = [(job.shown, state.device) for job, state in states if state.status in ACTIVE]
    values, rows = [], []
    for device in list_devices(settings):
        on = [name for name, place in running if place == device.name]
        values.append({"name": device.name, "title": device.title, "jobs_at_once": device.slots, "running": on})
        rows.append((device.name, device.title, device.slots, ", ".join(on) or "–"))
    answer(as_json, {"devices": values}, table("device", "what it is", "jobs at once", "running", rows=rows))
