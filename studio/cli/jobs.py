"""`studio jobs`: list, show, stop, resume, log; `queue` is about those that wait, `keep` about those that are over."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from studio.cli import keep, queue
from studio.cli.output import answer, say, table
from studio.cli.train import Json
from studio.cli.watch import follow, raise_unless_completed
from studio.errors import InputError
from studio.jobs import Summaries, ensure_supervisor, find_job, list_jobs, request_stop, resume, wait
from studio.jobs.disk import measure
from studio.jobs.summary import status_word
from studio.settings import read_settings


class Action(StrEnum):
    """What can be done with jobs."""

    list = "list"
    show = "show"
    stop = "stop"
    resume = "resume"
    log = "log"
    compare = "compare"
    rename = "rename"
    tag = "tag"
    note = "note"
    archive = "archive"
    unarchive = "unarchive"
    delete = "delete"
    clean = "clean"
    move = "move"
    edit = "edit"
    duplicate = "duplicate"
    devices = "devices"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    # `tag ID +good -bad`: -bad is a word here, no option; `keep.require_known` refuses what was meant as one.
    app.command("jobs", context_settings={"ignore_unknown_options": True})(jobs)


def jobs(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job's id or name.")] = "",
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MORE", help="Name, tags, note, place, further ids.")
    ] = None,
    sets: Annotated[list[str], typer.Option("--set", help="edit, duplicate: change one option.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="duplicate: name of the new run.")] = "",
    now: Annotated[bool, typer.Option("--now", help="stop: do not wait for the step to finish.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="resume: return at once.")] = False,
    following: Annotated[bool, typer.Option("--follow", help="show: stay until the job is over.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="delete, clean: do not ask.")] = False,
    form: Annotated[keep.Form, typer.Option("--as", help="compare: how it is printed.")] = keep.Form.table,
    as_json: Json = False,
) -> None:
    """List jobs, show, stop or resume one, print its log, or change, compare, name, tag, archive and delete them.

    move ID up|down|first|last · edit ID --set … · duplicate ID · devices · rename ID NAME · tag ID +good -bad ·
    note ID TEXT · archive ID … · unarchive ID … · compare ID ID … · delete ID … (for good) · clean ID … (only its
    checkpoints).
    """
    settings = read_settings()
    words = [*([job_id] if job_id else []), *(more or [])]
    keep.require_known(action.value, words)
    if action == Action.list:
        _list(as_json)
        return
    if action == Action.devices:
        queue.devices(settings, as_json)
        return
    if not job_id:
        raise InputError(f"'studio jobs {action.value}' needs a job", fix="'studio jobs list' shows their ids")
    if action.value in keep.VERBS:
        keep.act(settings, action.value, words, yes=yes, form=form, as_json=as_json)
        return
    job = find_job(settings.jobs, job_id)
    if action in (Action.move, Action.edit, Action.duplicate):
        queue.change(settings, job, action.value, place=(more or [""])[0], sets=sets, name=name, as_json=as_json)
        return
    if action == Action.log:
        text = job.log_path.read_text(encoding="utf-8", errors="replace") if job.log_path.exists() else ""
        if as_json:
            answer(True, {"id": job.id, "log": text}, "")
        else:
            sys.stdout.write(text)
        return
    if action == Action.stop:
        if job.state().final:
            raise InputError(f"'{job.name}' is over already ({job.state().status})")
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
        "id": job.id, "name": job.name, "kind": job.request.kind, "path": str(job.path),
        "state": asdict(state), "summary": asdict(summary), "labels": asdict(job.labels()),
        "disk": measure(job.path).as_dict(),
    }  # fmt: skip
    text = f"{job.id}\n{job.request.kind} {job.name}: {status_word(state, summary)}\n{job.path}\n{keep.about(job)}"
    answer(as_json, values, text)


def _list(as_json: bool) -> None:
    summaries = Summaries()
    rows, values = [], []
    for job in list_jobs(read_settings().jobs):
        state, summary, labels = job.state(), summaries.of(job), job.labels()
        best = summary.best[0] if summary.best else None
        values.append(
            {
                "id": job.id, "name": job.name, "kind": job.request.kind, "status": state.status,
                "tags": labels.tags, "archived": labels.archived,
                "reason": state.reason, "created": state.created, "step": summary.step,
                "total_steps": summary.total_steps, "best_eval_loss": best,
            }
        )  # fmt: skip
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.created))
        shown = "–" if best is None else f"{best:.4g}"
        if labels.archived:
            continue
        rows.append((job.id, job.request.kind, status_word(state, summary), shown, created))
    answer(as_json, {"jobs": values}, table("id", "kind", "state", "best loss", "created", rows=rows))
    if len(rows) < len(values):
        say(f"{len(values) - len(rows)} archived; --json lists them too")
