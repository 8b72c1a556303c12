"""`studio merge RECIPE.yaml`: one model made of several, which is chatted with, evaluated and exported like a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from studio.cli.jobs.watch import follow, raise_unless_completed
from studio.cli.output import answer, say, table
from studio.cli.work.train import Detach, Json
from studio.data.files.datafiles import resolve_path
from studio.errors import InputError
from studio.foreign import RUN
from studio.jobs import submit
from studio.jobs.store.files import read_json
from studio.merge.asking import Asked, prepare
from studio.merge.curve import MEASURES, curve_of, in_words
from studio.merge.sweep import in_a_line, prepare_sweep, queue_sweep, split_item
from studio.reach import read_text
from studio.settings import Settings, read_settings

Recipe = Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="A recipe in mergekit's YAML (docs/merge.md).")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("merge")(merge)


def merge(
    file: Recipe,
    name: Annotated[str, typer.Option("--name", help="Name of the child; by default the file's.")] = "",
    rows: Annotated[
        str | None, typer.Option("--evaluate", help="File of rows that the models and the child answer.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Start of DARE's and DELLA's random choices.")] = None,
    shard_gb: Annotated[float | None, typer.Option("--shard-gb", help="Maximum size of a file of the child.")] = None,
    sweep: Annotated[
        str,
        typer.Option("--sweep", help="A child for each value, compared on --evaluate: models.0.parameters.weight=0,1"),
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Only check the recipe and its models.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Merge models by a recipe: runs, checkpoints of runs, folders and models of the Hub."""
    settings = read_settings()
    rows_path = None if rows is None else str(resolve_path(rows, settings))
    given = {"seed": seed, "shard_gb": shard_gb, "evaluate": rows_path}
    options: dict[str, Any] = {key: one for key, one in given.items() if one is not None}
    if sweep:
        _sweep(settings, file, sweep, name or Path(file).stem, options, check, detach, as_json)
        return
    asked = prepare(read_file(file), settings, file, **options)
    for text in asked.warnings:
        say(f"warning: {text}")
    if check:
        values = {"method": asked.recipe.merge_method, "warnings": asked.warnings, "seconds": asked.seconds}
        answer(as_json, values | {"parents": asked.config.parents}, _plan(asked))
        return
    job = submit(settings, "merge", name or Path(file).stem, asked.config.model_dump(mode="json"))
    if detach:
        answer(as_json, {"id": job.id, "warnings": asked.warnings}, f"{job.id} is queued")
        return
    raise_unless_completed(job, follow(job))
    report = read_json(job.report / "merge.json")
    values = {"id": job.id, "path": str(job.path), **report, "warnings": asked.warnings}
    if report["evaluation"] is not None:
        say(f"{job.request.name} merged ({report['title']}): {job.model}")
        answer(as_json, values, _scores(report["evaluation"]))
        return
    answer(as_json, values, f"{job.request.name} merged ({report['title']})\n{job.model}")


def _sweep(
    settings: Settings, file: str, item: str, name: str, options: dict[str, Any], check: bool, detach: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Merge once for each value, and print what each child scores; the models answer in the first."""
    sweep = prepare_sweep(read_file(file), *split_item(item), settings, file, **options)
    for text in sweep.first.warnings:
        say(f"warning: {text}")
    if check:
        values = {"place": sweep.place, "values": list(sweep.configs), "seconds": sweep.seconds, "bytes": sweep.bytes}
        answer(as_json, values | {"warnings": sweep.first.warnings}, in_a_line(sweep))
        return
    jobs = queue_sweep(sweep, settings, name)
    group = jobs[0].request.group
    if detach:
        answer(as_json, {"group": group, "ids": [job.id for job in jobs]}, f"{group}: {len(jobs)} merges are queued")
        return
    for job in jobs:
        raise_unless_completed(job, follow(job))
    curve = curve_of(jobs)
    rows = [(one["name"], "–", in_words(curve, one), f"{one['score']:.1%}") for one in curve["parents"]]
    rows += [(one["name"], f"{one['value']:g}", in_words(curve, one), f"{one['score']:.1%}") for one in curve["points"]]
    shown = table("model", sweep.place, "right", MEASURES[curve["measure"]].lower(), rows=rows)
    answer(as_json, {"group": group, **curve}, shown)


def read_file(file: str) -> str:
    """Return the text of a recipe's file.

    Raises:
        InputError: it is not there, no text, or too large.
    """
    try:
        return read_text(Path(file).expanduser(), RUN.bytes)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=file, fix="Check the path") from error
    except IsADirectoryError as error:
        raise InputError("this is a folder", where=file, fix="Give a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=file, fix="Save the file as UTF-8") from error


def _scores(evaluation: dict[str, Any]) -> Table:
    rows = [(one["name"], in_words(evaluation, one), f"{one['score']:.1%}") for one in evaluation["scores"]]
    return table("model", f"right in {evaluation['data']}", MEASURES[evaluation["measure"]].lower(), rows=rows)


def _plan(asked: Asked) -> str:
    method = asked.recipe.method
    lines = [f"{method.title}: {method.makes}.", *([f"{method.note}."] if method.note else [])]
    lines += [f"{one.word}: {one.kind} {one.id}" for one in asked.parents]
    if asked.seconds is not None:
        lines.append(f"about {asked.seconds:.0f} s")
    return "\n".join(lines)
