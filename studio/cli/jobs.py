"""`studio jobs`: list, show, stop, resume, log."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from studio.cli.output import answer, say, table
from studio.cli.train import Json
from studio.cli.watch import follow, raise_unless_completed
from studio.errors import InputError
from studio.jobs import Summaries, ensure_supervisor, find_job, list_jobs, request_stop, resume, wait
from studio.jobs.summary import status_word
from studio.settings import read_settings


class Action(StrEnum):
    """What can be done with jobs."""

    list = "list"
    show = "show"
    stop = "stop"
    resume = "resume"
    log = "log"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("jobs")(jobs)


def jobs(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job's id or name.")] = "",
    now: Annotated[bool, typer.Option("--now", help="stop: do not wait for the step to finish.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="resume: return at once.")] = False,
    following: Annotated[bool, typer.Option("--follow", help="show: stay until the job is over.")] = False,
    as_json: Json = False,
) -> None:
    """List jobs, show one, stop one, let one that ended early go on, or print its log."""
    settings = read_settings()
    if action == Action.list:
        _list(as_json)
        return
    if not job_id:
        raise InputError(f"'studio jobs {action.value}' needs a job", fix="'studio jobs list' shows their ids")
    job = find_job(settings.jobs, job_id)
    if action == Action.log:
        text = job.log_path.read_text(encoding="utf-8", errors="replace") if job.log_path.exists() else ""
        if as_json:
            answer(True, {"id": job.id, "log": text}, "")
        else:
            sys.stdout.write(text)
        return
    if action == Action.stop:
        if job.state().final:
            raise InputError(f"'{job.request.name}' is over already ({job.state().status})")
        request_stop(job, now=now)
        ensure_supervisor(settings)  # it may have been killed, and a stop needs one
        say("asked to stop; waiting for it")
        wait(job)
    elif action == Action.resume:
        told = job.events_path.stat().st_size
        say(f"goes on from step {resume(settings, job).step}")
        if not detach:
            raise_unless_completed(job, follow(job, told))
    elif following:
        follow(job)
    state, summary = job.state(), Summaries().of(job)
    values = {
        "id": job.id, "name": job.request.name, "kind": job.request.kind, "path": str(job.path),
        "state": asdict(state), "summary": asdict(summary),
    }  # fmt: skip
    text = f"{job.id}\n{job.request.kind} {job.request.name}: {status_word(state, summary)}\n{job.path}"
    answer(as_json, values, text)


def _list(as_json: bool) -> None:
    summaries = Summaries()
    rows, values = [], []
    for job in list_jobs(read_settings().jobs):
        state, summary = job.state(), summaries.of(job)
        best = summary.best[0] if summary.best else None
        values.append(
            {
                "id": job.id, "name": job.request.name, "kind": job.request.kind, "status": state.status,
                "reason": state.reason, "created": state.created, "step": summary.step,
                "total_steps": summary.total_steps, "best_eval_loss": best,
            }
        )  # fmt: skip
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.created))
        shown = "–" if best is None else f"{best:.4g}"
        rows.append((job.id, job.request.kind, status_word(state, summary), shown, created))
    answer(as_json, {"jobs": values}, table("id", "kind", "state", "best loss", "created", rows=rows))
