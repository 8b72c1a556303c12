"""`studio openai`: jobs that train at OpenAI, or at another service of the same API."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.jobs.watch import FOLLOW, follow, raise_unless_completed
from studio.cli.output import answer, say, table
from studio.cli.work.train import Detach, Json
from studio.config.load import apply_set, build, load_yaml
from studio.config.remote import OpenAIConfig
from studio.data.files.datafiles import resolve_path
from studio.errors import InputError
from studio.jobs import JobFolder, Summaries, ensure_supervisor, wait
from studio.jobs.store.finding import find_job, jobs_of_kind
from studio.jobs.views.summary import status_word
from studio.remote import asking
from studio.remote.prepare import Prepared, prepare
from studio.remote.record import read_record
from studio.remote.table import read_table
from studio.remote.tokens import fetch_encoding
from studio.settings import Settings, read_settings

group = typer.Typer(help="Fine-tune at OpenAI, or at another service of the same API.", no_args_is_help=True)
Asked = Annotated[
    str, typer.Argument(metavar="ROWS|JOB.yaml", help="File of rows, or a YAML file with the options of the job.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change an option: n_epochs=3. docs/config.md lists them.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id or name here.")]
Address = Annotated[
    str | None, typer.Option("--base-url", help="Address of the service; OPENAI_BASE_URL or OpenAI's if not given.")
]


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    app.add_typer(group, name="openai")


@group.command("models")
def models(
    fetch: Annotated[
        bool, typer.Option("--fetch-tokens", help="Fetch OpenAI's table of tokens, so that they are counted exactly.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models that can be tuned, with prices and how old these are."""
    settings = read_settings()
    known = read_table(settings)
    today = datetime.datetime.now().date()
    if fetch:
        for encoding in dict.fromkeys(one.encoding for one in known.models):
            say(f"{encoding}: {fetch_encoding(encoding, settings)}")
    rows = [
        (
            one.name, ", ".join(one.methods), _usd(one.training) if one.training_hour is None else
            f"{_usd(one.training_hour)} an hour", _usd(one.input), _usd(one.output), one.shut_down or "–",
        )
        for one in known.models
    ]  # fmt: skip
    values = {
        "models": [one.model_dump(mode="json") for one in known.models], "as_of": str(known.as_of),
        "source": known.source, "table": str(known.path), "closing": known.closing, "age": known.age(today),
    }  # fmt: skip
    titles = ("model", "methods", "training, USD a million tokens", "prompts", "answers", "shut down")
    answer(as_json, values, table(*titles, rows=rows))
    say(f"{known.age(today)} The table is {known.path}.")
    if known.closing:
        say(f"note: {known.closing}.")


@group.command("check")
def check(asked: Asked, sets: Set = None, as_json: Json = False) -> None:
    """Check rows and say what training on them costs; nothing is sent."""
    prepared = _prepared(asked, sets or [], read_settings())
    _tell_warnings(prepared)
    answer(as_json, prepared.as_dict(), f"{_size(prepared)}\n{prepared.cost()}")
    prepared.require_sound()


@group.command("start")
def start(
    asked: Asked,
    sets: Set = None,
    name: Annotated[str, typer.Option("--name", help="Name of the job; by default the file's.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="The price is known, and the rows may be sent.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Check rows, show the price, and after a yes send them and start the job."""
    settings = read_settings()
    prepared = _prepared(asked, sets or [], settings)
    prepared.require_sound()
    _tell_warnings(prepared)
    say(f"{_size(prepared)}, to {prepared.config.base_url}\n{prepared.cost()}")
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody confirmed the price", where="--yes", fix="Read it above, and add --yes")
        if not typer.confirm("Send the rows and start the job?", err=True):
            raise typer.Abort
    job = asking.start(prepared, settings, name or Path(asked).stem)
    if detach:
        answer(as_json, {"id": job.id, **prepared.as_dict()}, f"{job.id} is queued")
        return
    raise_unless_completed(job, follow(job))
    _tell(job, as_json)


@group.command("jobs")
def jobs(
    there: Annotated[bool, typer.Option("--there", help="Ask the service for its own list.")] = False,
    base_url: Address = None,
    as_json: Json = False,
) -> None:
    """List the jobs here, or with --there those at the service, also ones that were started elsewhere."""
    settings = read_settings()
    here = {read_record(job).job: job for job in jobs_of_kind(settings.jobs, "openai")}
    if there:
        found = [one | {"here": here[one["job"]].id if one["job"] in here else None}
                 for one in asking.jobs_there(base_url)]  # fmt: skip
        lines = [(one["job"], one["status"], one["model"], one["tuned"] or "–", one["here"] or "–") for one in found]
        answer(as_json, {"jobs": found}, table("job", "state", "model", "tuned model", "here", rows=lines))
        return
    if any(not job.state().final for job in here.values()):
        ensure_supervisor(settings)  # after a restart of the computer nobody may be following them
    values = [_values(job) for job in jobs_of_kind(settings.jobs, "openai")]
    rows = [(one["id"], one["word"], one["job"] or "–", one["tuned"] or "–") for one in values]
    answer(as_json, {"jobs": values}, table("id", "state", "job there", "tuned model", rows=rows))


@group.command("show")
def show(
    wanted: JobName,
    following: Annotated[bool, typer.Option("--follow", help=FOLLOW)] = False,
    as_json: Json = False,
) -> None:
    """Show a job: its state here and there, its models, its checkpoints."""
    settings = read_settings()
    job = find_job(settings.jobs, wanted, "openai")
    if not job.state().final:
        ensure_supervisor(settings)
    if following:
        follow(job, stops=False)
    _tell(job, as_json)


@group.command("stop")
def stop(wanted: JobName, as_json: Json = False) -> None:
    """Cancel a job at the service."""
    settings = read_settings()
    job = find_job(settings.jobs, wanted, "openai")
    say(asking.stop(settings, job))
    wait(job)
    _tell(job, as_json)


@group.command("pause")
def pause(wanted: JobName, as_json: Json = False) -> None:
    """Pause a job at the service."""
    job = find_job(read_settings().jobs, wanted, "openai")
    status = asking.pause(job)
    answer(as_json, {"id": job.id, "status": status}, f"{job.id} is {status} at the service")


@group.command("resume")
def resume(wanted: JobName, as_json: Json = False) -> None:
    """Let a paused job go on, or follow one again that nobody follows."""
    settings = read_settings()
    job = find_job(settings.jobs, wanted, "openai")
    done = asking.go_on(settings, job)
    answer(as_json, {"id": job.id, "done": done}, f"{job.id}: {done}")


@group.command("adopt")
def adopt(
    id: Annotated[str, typer.Argument(metavar="FTJOB", help="Id of a job at the service.")],
    name: Annotated[str, typer.Option("--name", help="Name of the job here; by default the id.")] = "",
    base_url: Address = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Follow a job that was started elsewhere as if it had been started here."""
    job = asking.adopt(read_settings(), id, name, base_url)
    if detach:
        answer(as_json, {"id": job.id}, f"{job.id} is queued")
        return
    raise_unless_completed(job, follow(job))
    _tell(job, as_json)


@group.command("delete")
def delete(
    id: Annotated[str, typer.Argument(metavar="FILE|MODEL", help="file-… or ft:… at the service.")],
    base_url: Address = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a file or a tuned model at the service; a job's folder here is deleted with 'studio jobs delete'."""
    what: Any = "file" if id.startswith("file-") else "model" if id.startswith("ft:") else None
    if what is None:
        raise InputError(f"'{id}' is neither a file nor a tuned model", where=id, fix="Give file-… or ft:…")
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Delete {id} at the service for good?", err=True)):
        raise InputError("nobody confirmed it", where="--yes", fix="Add --yes; it cannot be undone")
    asking.delete(what, id, base_url, read_settings())
    answer(as_json, {"deleted": id}, f"{id} is deleted")


def _prepared(asked: str, sets: list[str], settings: Settings) -> Prepared:
    raw: dict[str, Any] = {"data": asked}
    if Path(asked).suffix in (".yaml", ".yml"):
        raw = load_yaml(Path(asked))
    for item in sets:
        apply_set(raw, item, OpenAIConfig)
    config = build(OpenAIConfig, raw, asked)
    for name in ("data", "validation"):
        if path := getattr(config, name):
            config = config.model_copy(update={name: str(resolve_path(path, settings))})
    say("checking the rows …")
    return prepare(config, settings)


def _tell_warnings(prepared: Prepared) -> None:
    for text in prepared.warnings:
        say(f"warning: {text}")


def _size(prepared: Prepared) -> str:
    held = f" and {prepared.validation_rows:,} for validation" if prepared.validation_rows else ""
    return f"{prepared.config.name}, {prepared.config.method}: {prepared.rows:,} rows{held}"


def _values(job: JobFolder) -> dict[str, Any]:
    state, record = job.state(), read_record(job)
    return {
        "id": job.id, "name": job.shown, "status": state.status, "word": status_word(state, Summaries().of(job)),
        "reason": state.reason, "fix": state.fix, "job": record.job, "there": record.status, "base": record.base,
        "tuned": record.tuned, "trained_tokens": record.trained_tokens, "models": record.models(),
        "files": [one for one in (record.training_file, record.validation_file) if one],
        "hyperparameters": record.hyperparameters, "base_url": record.base_url, "path": str(job.path),
    }  # fmt: skip


def _tell(job: JobFolder, as_json: bool) -> None:
    values = _values(job)
    lines = [job.id, f"{values['name']}: {values['word']}"]
    if values["job"]:
        lines.append(f"{values['job']} at {values['base_url']}: {values['there'] or 'just started'}")
    lines += [f"{name}: {model}" for name, model in values["models"].items()]
    if values["trained_tokens"] is not None:
        lines.append(f"{values['trained_tokens']:,} tokens are billed")
    answer(as_json, values, "\n".join(lines))


def _usd(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"
