"""`studio merge RECIPE.yaml`: one model made of several, which is chatted with, evaluated and exported like a run."""

from __future__ import annotations

import time
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
from studio.merge.sweep import variants
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
        _sweep(settings, file, sweep, name or Path(file).stem, options, as_json)
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
    settings: Settings, file: str, item: str, name: str, options: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """Merge once for each value, and print how many rows each child gets right; the models answer in the first."""
    if "evaluate" not in options:
        raise InputError("a sweep compares its children on rows", where="--sweep", fix="Add --evaluate FILE")
    found = variants(read_file(file), item, file)
    asked = [
        (value, prepare(text, settings, file, compare=not at, **options)) for at, (value, text) in enumerate(found)
    ]
    for text in asked[0][1].warnings:
        say(f"warning: {text}")
    group = f"{name}-sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    jobs = [
        submit(settings, "merge", f"{name}-{value:g}", one.config.model_dump(mode="json"), group)
        for value, one in asked
    ]  # fmt: skip
    points: list[dict[str, Any]] = []
    parents: list[dict[str, Any]] = []
    total = 0
    for job, (value, _) in zip(jobs, found, strict=True):
        raise_unless_completed(job, follow(job))
        evaluation = read_json(job.report / "merge.json")["evaluation"]
        *models, child = evaluation["scores"]
        parents, total = parents or models, evaluation["total"]
        points.append({"value": value, "id": job.id, **child})
    place = item.partition("=")[0]
    rows = [(one["name"], "–", f"{one['correct']} / {total}", f"{one['exact_match']:.1%}") for one in parents]
    rows += [(one["name"], f"{one['value']:g}", f"{one['correct']} / {total}", f"{one['exact_match']:.1%}")
             for one in points]  # fmt: skip
    values = {"group": group, "place": place, "total": total, "points": points, "parents": parents}
    answer(as_json, values, table("model", place, "right", "exact match", rows=rows))


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
    rows = [
        (one["name"], f"{one['correct']} / {evaluation['total']}", f"{one['exact_match']:.1%}")
        for one in evaluation["scores"]
    ]
    return table("model", f"right of {evaluation['data']}", "exact match", rows=rows)


def _plan(asked: Asked) -> str:
    method = asked.recipe.method
    lines = [f"{method.title}: {method.makes}.", *([f"{method.note}."] if method.note else [])]
    lines += [f"{one.word}: {one.kind} {one.id}" for one in asked.parents]
    if asked.seconds is not None:
        lines.append(f"about {asked.seconds:.0f} s")
    return "\n".join(lines)
