"""`studio jobs` for what comes after the run: compare, rename, tag, note, archive, delete, clean."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from studio.cli.output import answer, say, table, write
from studio.cli.work.train import Job, Json
from studio.errors import InputError
from studio.escaping import for_terminal
from studio.jobs import JobFolder, Summaries, find_job
from studio.jobs.actions.removal import What, removal_question, remove_checkpoints, remove_job
from studio.jobs.store.finding import find_only, find_own, jobs_of_kind
from studio.jobs.store.labels import Labels, change_labels, changed_tags
from studio.jobs.store.request import MODEL_KINDS
from studio.jobs.views.compare import Comparison, compare_runs
from studio.jobs.views.comparedtext import as_csv, as_markdown
from studio.jobs.views.disk import PARTS, DiskBook, gigabytes, measure
from studio.settings import read_settings

Jobs = Annotated[list[str], typer.Argument(metavar="ID …", help="Ids or names of jobs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


class Form(StrEnum):
    """How a comparison is printed."""

    table = "table"
    markdown = "markdown"
    csv = "csv"


def add_to(group: typer.Typer) -> None:
    """Register the commands."""
    # `tag ID +good -bad`: -bad is a word here, no option; what was meant as one is refused below.
    words = {"ignore_unknown_options": True}
    for command in (compare, rename, tag, note, archive, unarchive, delete, clean):
        group.command(context_settings=words if command is tag else None)(command)


def compare(
    job_ids: Jobs,
    form: Annotated[Form, typer.Option("--as", help="Output format.")] = Form.table,
    as_json: Json = False,
) -> None:
    """Show the options that differ between runs, or the recipes of merges, and their results."""
    settings = read_settings()
    if len(job_ids) < 2:
        raise InputError("one run cannot be compared with itself", fix="Give two or more: studio jobs compare ID ID …")
    jobs = [find_job(settings.jobs, word, MODEL_KINDS) for word in job_ids]
    found = compare_runs(jobs, Summaries(), DiskBook(), jobs_of_kind(settings.jobs, "evaluate"))
    if as_json or form == Form.table:
        answer(as_json, found.as_dict(), _table(found))
        for line in found.notes:
            say(line)
    else:
        write(as_csv(found) if form == Form.csv else as_markdown(found))


def rename(
    job_id: Job,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name; '' restores the original one.")],
    as_json: Json = False,
) -> None:
    """Give a job another name; its id and folder stay."""
    job = find_own(read_settings().jobs, job_id)
    labels = change_labels(job.path, name=name)
    _labelled(job, labels, f"{job.id} is now '{job.name}'", as_json)


def tag(
    job_id: Job,
    words: Annotated[list[str], typer.Argument(metavar="+TAG|-TAG …", help="Tags to add and to remove.")],
    as_json: Json = False,
) -> None:
    """Add tags to a job and remove others: tag ID +good -bad."""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            raise InputError(f"no such option: {word}", fix="'studio jobs tag --help' shows the options")
    job = find_own(read_settings().jobs, job_id)
    labels = change_labels(job.path, tags=changed_tags(job.labels().tags, words))
    _labelled(job, labels, f"'{job.name}': {', '.join(labels.tags) or 'no tags'}", as_json)


def note(
    job_id: Job,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; '' removes it.")],
    as_json: Json = False,
) -> None:
    """Write a note on a job."""
    job = find_own(read_settings().jobs, job_id)
    labels = change_labels(job.path, note=text)
    _labelled(job, labels, f"'{job.name}' has {'a' if labels.note else 'no'} note", as_json)


def archive(job_ids: Jobs, as_json: Json = False) -> None:
    """Archive jobs: nothing is deleted, but lists hide them."""
    _put_away(job_ids, True, as_json)


def unarchive(job_ids: Jobs, as_json: Json = False) -> None:
    """Unarchive jobs: lists show them again."""
    _put_away(job_ids, False, as_json)


def delete(job_ids: Jobs, yes: Yes = False, as_json: Json = False) -> None:
    """Delete jobs permanently, with their models, checkpoints and exports."""
    _remove(job_ids, "job", yes, as_json)


def clean(job_ids: Jobs, yes: Yes = False, as_json: Json = False) -> None:
    """Delete only the checkpoints of jobs; their models stay."""
    _remove(job_ids, "checkpoints", yes, as_json)


def about(job: JobFolder) -> str:
    """Disk use, tags and note of a job, for a terminal."""
    use, labels = measure(job.path), job.labels()
    parts = [f"{part} {gigabytes(getattr(use, part))}" for part in PARTS if getattr(use, part)]
    lines = [f"{gigabytes(use.total)} on disk: {', '.join(parts)}"]
    lines += [f"tags: {', '.join(labels.tags)}"] if labels.tags else []
    lines += ["archived"] if labels.archived else []
    return "\n".join([*lines, *([labels.note] if labels.note else [])])


def _labelled(job: JobFolder, labels: Labels, told: str, as_json: bool) -> None:
    answer(as_json, {"id": job.id, **asdict(labels), "name": job.name}, told)


def _put_away(job_ids: list[str], away: bool, as_json: bool) -> None:
    settings = read_settings()
    jobs = [find_own(settings.jobs, word) for word in job_ids]
    for job in jobs:
        change_labels(job.path, archived=away)
    told = f"{'archived' if away else 'unarchived'}: " + ", ".join(f"'{job.name}'" for job in jobs)
    answer(as_json, {"ids": [job.id for job in jobs], "archived": away}, told)


def _table(found: Comparison) -> Table:
    lines = [("state", [str(run["word"]) for run in found.runs], list[int]())]
    lines += [(row.key, row.values, row.best) for row in found.options]
    lines += [(row.title, row.values, row.best) for row in found.results]
    made = table("", *(str(run["name"]) for run in found.runs), rows=[])
    for title, texts, best in lines:
        cells = [
            Text(for_terminal(f"{text} best"), "bold") if at in best else Text(for_terminal(text))
            for at, text in enumerate(texts)
        ]
        made.add_row(title, *cells)
    return made


def _remove(job_ids: list[str], what: What, yes: bool, as_json: bool) -> None:
    settings = read_settings()
    jobs = list({job.id: job for job in (find_only(settings.jobs, word) for word in job_ids)}.values())
    question = removal_question(settings, jobs, what)
    if question.refused:
        raise InputError(" ".join(question.refused))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                "nothing was deleted: there is no terminal to ask on", where=question.title, fix="Pass --yes to confirm"
            )
        say("\n".join([question.title, *question.lines, "Delete it? [y/N]"]))
        # Not `typer.confirm`, which writes to stdout, where the answer belongs.
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            answer(as_json, {"ids": [], "freed_bytes": 0}, "nothing was deleted")
            return
    remove = remove_job if what == "job" else remove_checkpoints
    freed = sum(remove(settings, job) for job in jobs)
    many = "checkpoints of " if what == "checkpoints" else ""
    told = f"deleted {many}{', '.join(job.id for job in jobs)}: {gigabytes(freed)} freed"
    answer(as_json, {"ids": [job.id for job in jobs], "freed_bytes": freed}, told)
