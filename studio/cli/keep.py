"""`studio jobs` for what comes after the run: compare, rename, tag, note, archive, delete, clean."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from studio.cli.output import answer, say, table
from studio.errors import InputError
from studio.jobs import JobFolder, Summaries, find_job, list_jobs
from studio.jobs.compare import Comparison
from studio.jobs.comparetext import as_csv, as_markdown
from studio.jobs.disk import PARTS, DiskBook, gigabytes, measure
from studio.jobs.labels import change_labels, changed_tags
from studio.jobs.removal import What, removal_question, remove_checkpoints, remove_job
from studio.settings import Settings
from studio.train.comparing import compare_runs


class Form(StrEnum):
    """How a comparison is printed."""

    table = "table"
    markdown = "markdown"
    csv = "csv"


# How many words a verb takes after its name: (at least, at most; None is any number).
VERBS: dict[str, tuple[int, int | None]] = {
    "compare": (2, None),
    "rename": (2, 2),
    "tag": (2, None),
    "note": (2, 2),
    "archive": (1, None),
    "unarchive": (1, None),
    "delete": (1, None),
    "clean": (1, None),
}
_FIXES = {
    "compare": "studio jobs compare ID ID …",
    "rename": "studio jobs rename ID 'another name'; '' gives the first one back",
    "tag": "studio jobs tag ID +good -bad",
    "note": "studio jobs note ID 'some text'; '' removes it",
}


def require_known(verb: str, words: list[str]) -> None:
    """Refuse options that do not exist and words that a verb does not take.

    Raises:
        InputError: there is one, or too few.
    """
    for word in words:
        if word.startswith("--") and len(word) > 2:
            raise InputError(f"no such option: {word}", fix="'studio jobs --help' shows the options")
    least, most = VERBS.get(verb, (0, 1))
    if most is not None and len(words) > most:
        raise InputError(
            f"'{words[most]}' is one word too many", where=f"studio jobs {verb}",
            fix=_FIXES.get(verb, "Put a text with spaces in quotes"),
        )  # fmt: skip
    if 0 < len(words) < least:
        raise InputError(f"'studio jobs {verb}' needs more than the job", fix=_FIXES[verb])


def act(settings: Settings, verb: str, words: list[str], *, yes: bool, form: Form, as_json: bool) -> None:
    """Do what a verb says.

    Args:
        settings: whose jobs.
        verb: one of `VERBS`.
        words: a job's id or name, and what the verb takes beside it.
        yes: delete without asking.
        form: how a comparison is printed.
        as_json: one JSON object on stdout.

    Raises:
        InputError: there is no such job, or what is asked cannot be done.
    """
    if verb in ("rename", "tag", "note"):
        _label(find_job(settings.jobs, words[0]), verb, words[1:], as_json)
        return
    jobs = [find_job(settings.jobs, word, "train" if verb == "compare" else None) for word in words]
    if verb == "compare":
        _compare(settings, jobs, form, as_json)
    elif verb in ("archive", "unarchive"):
        for job in jobs:
            change_labels(job.path, archived=verb == "archive")
        told = ", ".join(f"'{job.name}'" for job in jobs)
        answer(as_json, {"ids": [job.id for job in jobs], "archived": verb == "archive"}, f"{verb}d: {told}")
    else:
        _remove(settings, jobs, "job" if verb == "delete" else "checkpoints", yes, as_json)


def about(job: JobFolder) -> str:
    """Disk use, tags and note of a job, for a terminal."""
    use, labels = measure(job.path), job.labels()
    parts = [f"{part} {gigabytes(getattr(use, part))}" for part in PARTS if getattr(use, part)]
    lines = [f"{gigabytes(use.total)} on disk: {', '.join(parts)}"]
    lines += [f"tags: {', '.join(labels.tags)}"] if labels.tags else []
    lines += ["archived"] if labels.archived else []
    return "\n".join([*lines, *([labels.note] if labels.note else [])])


def _label(job: JobFolder, verb: str, words: list[str], as_json: bool) -> None:
    if verb == "rename":
        labels = change_labels(job.path, name=words[0])
        told = f"{job.id} is now '{job.name}'"
    elif verb == "note":
        labels = change_labels(job.path, note=words[0])
        told = f"'{job.name}' has {'a' if labels.note else 'no'} note"
    else:
        labels = change_labels(job.path, tags=changed_tags(job.labels().tags, words))
        told = f"'{job.name}': {', '.join(labels.tags) or 'no tags'}"
    answer(as_json, {"id": job.id, **asdict(labels), "name": job.name}, told)


def _compare(settings: Settings, jobs: list[JobFolder], form: Form, as_json: bool) -> None:
    evaluations = [job for job in list_jobs(settings.jobs) if job.request.kind == "evaluate"]
    found = compare_runs(jobs, Summaries(), DiskBook(), evaluations)
    if as_json or form == Form.table:
        answer(as_json, found.as_dict(), _table(found))
        for note in found.notes:
            say(note)
    else:
        sys.stdout.write(as_csv(found) if form == Form.csv else as_markdown(found))


def _table(found: Comparison) -> Table:
    lines = [("state", [str(run["word"]) for run in found.runs], list[int]())]
    lines += [(row.key, row.values, row.best) for row in found.options]
    lines += [(row.title, row.values, row.best) for row in found.results]
    made = table("", *(escape(str(run["name"])) for run in found.runs), rows=[])
    for title, texts, best in lines:
        cells = [Text(f"{text} best", "bold") if at in best else Text(text) for at, text in enumerate(texts)]
        made.add_row(title, *cells)
    return made


def _remove(settings: Settings, jobs: list[JobFolder], what: What, yes: bool, as_json: bool) -> None:
    question = removal_question(settings, jobs, what)
    if question.refused:
        raise InputError(" ".join(question.refused))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                "nothing was deleted: there is no terminal to ask on", where=question.title, fix="Say --yes to mean it"
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
