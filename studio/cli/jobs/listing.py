"""`studio jobs`: list, show, stop, resume and log. The other verbs are in `queue` (those that wait), `branch` (going on
as another run) and `keep` (comparing, naming, putting away, deleting)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from studio.cli.jobs import branch, keep, queue
from studio.cli.jobs.watch import FOLLOW, follow, raise_unless_completed
from studio.cli.output import answer, say, table, write
from studio.cli.work.train import Detach, Job, Json
from studio.errors import InputError
from studio.jobs import (
    JobFolder,
    Summaries,
    ensure_supervisor,
    find_job,
    list_jobs,
    request_stop,
    resume,
    wait,
)  # fmt: skip
from studio.jobs.store.finding import find_own
from studio.jobs.views.disk import measure
from studio.jobs.views.summary import status_word, tracked
from studio.settings import read_settings

group = typer.Typer(help="List jobs and act on them.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    for module in (queue, branch, keep):
        module.add_to(group)
    app.add_typer(group, name="jobs")


@group.callback()
def _group(context: typer.Context, as_json: Json = False) -> None:
    """List jobs and act on them; without a verb, list them."""
    if context.invoked_subcommand is None:
        list_all(as_json)
    elif as_json:  # before the verb it means the same as behind it
        context.default_map = {context.invoked_subcommand: {"as_json": True}}


@group.command("list")
def list_all(as_json: Json = False) -> None:
    """List the jobs of this home, newest first; archived ones that are over are counted only."""
    summaries = Summaries()
    rows, values = [], []
    for job in list_jobs(read_settings().jobs):
        state, summary, labels = job.state(), summaries.of(job), job.labels()
        kind, best = _kind(job), summary.best[0] if summary.best else None
        values.append(
            {
                "id": job.id, "name": job.shown, "kind": kind, "status": state.status, "machine": job.machine,
                "tags": labels.tags, "archived": labels.archived,
                "reason": state.reason, "created": state.created, "step": summary.step,
                "total_steps": summary.total_steps, "best_eval_loss": best,
            }
        )  # fmt: skip
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.created))
        shown = "–" if best is None else f"{best:.4g}"
        if labels.archived and state.final:
            continue
        word = status_word(state, summary) + (f" on {job.machine}" if job.machine else "")
        rows.append((job.id, kind, word, shown, created))
    answer(as_json, {"jobs": values}, table("id", "kind", "state", "best loss", "created", rows=rows))
    if len(rows) < len(values):
        say(f"{len(values) - len(rows)} archived; --json lists them too")


def _kind(job: JobFolder) -> str:
    try:
        return job.heading[0]
    except InputError:
        return "?"  # its job.yaml cannot be read, which hides no other job


@group.command("show")
def show(
    job_id: Job,
    following: Annotated[bool, typer.Option("--follow", help=FOLLOW)] = False,
    as_json: Json = False,
) -> None:
    """Show a job: its state, what it reported, its files."""
    job = find_job(read_settings().jobs, job_id)
    if following:
        follow(job, stops=False)
    _tell(job, as_json)


@group.command("stop")
def stop(
    job_id: Job,
    now: Annotated[bool, typer.Option("--now", help="Stop without finishing the step.")] = False,
    as_json: Json = False,
) -> None:
    """Stop a job: the step is finished and what was learned is saved; 'resume' continues from there."""
    settings = read_settings()
    job = find_own(settings.jobs, job_id)
    if job.state().final:
        raise InputError(f"'{job.name}' has already ended ({job.state().status})")
    request_stop(job, now=now)
    ensure_supervisor(settings)  # it may have been killed, and a stop needs one
    say("stop requested; waiting for the job to end")
    wait(job)
    _tell(job, as_json)


@group.command("resume")
def go_on(job_id: Job, detach: Detach = False, as_json: Json = False) -> None:
    """Resume a training run that ended early from its last checkpoint."""
    settings = read_settings()
    job = find_own(settings.jobs, job_id)
    told = job.events_path.stat().st_size
    step = resume(settings, job).step
    say(f"resuming from step {step}" if step else "resuming")
    if not detach:
        raise_unless_completed(job, follow(job, told))
    _tell(job, as_json)


@group.command("log")
def log(job_id: Job, as_json: Json = False) -> None:
    """Print a job's log."""
    job = find_job(read_settings().jobs, job_id)
    text = job.log_path.read_text(encoding="utf-8", errors="replace") if job.log_path.exists() else ""
    if as_json:
        answer(True, {"id": job.id, "log": text}, "")
    else:
        write(text)


def _tell(job: JobFolder, as_json: bool) -> None:
    state, summary = job.state(), Summaries().of(job)
    values = {
        "id": job.id, "name": job.name, "kind": job.request.kind, "path": str(job.path),
        "state": asdict(state), "summary": asdict(summary), "labels": asdict(job.labels()),
        "disk": measure(job.path).as_dict(),
    }  # fmt: skip
    text = f"{job.id}\n{job.request.kind} {job.name}: {status_word(state, summary)}\n{job.path}\n{keep.about(job)}"
    text += f"\non {job.machine}" if job.machine else ""
    for title, place in tracked(summary):
        text += f"\n{title}: {place}"
    answer(as_json, values, text)
