"""`studio data inspect`."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from studio.cli.output import answer, phase_line, stderr
from studio.cli.train import Json
from studio.config.data import DataSource
from studio.config.model import EMBEDDED_MODEL
from studio.data.client import DataWorker
from studio.data.locate import absolute, locate
from studio.models.catalogue import resolve_model
from studio.settings import read_settings

group = typer.Typer(help="Look at data before training.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    app.add_typer(group, name="data")


@group.callback()
def _group() -> None:
    """Look at data before training."""


@group.command("inspect")
def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A JSON or JSONL file, demo/train.jsonl, dataset_info.json:NAME, or org/name of a set on the Hub.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Whose tokens are counted.")] = EMBEDDED_MODEL,
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a set on the Hub.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of a set on the Hub; train if not given.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Its branch, tag or commit.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a file holds: rows, format, lengths, and what is wrong with it. A set of the Hub is fetched for it."""
    settings = read_settings()
    given = {"subset": subset, "split": split, "revision": revision}
    hub = {name: value for name, value in given.items() if value is not None}
    path = absolute(file, settings)
    with stderr.status("") as status:
        locate(DataSource(path=path, **hub), settings, fetch=lambda *phase: status.update(phase_line(*phase)))
    reference = resolve_model(model, settings, fetch=True)
    with contextlib.closing(DataWorker(settings)) as worker:
        found = worker.call("inspect", path=path, options=hub, model=str(reference.path))
    lengths = found["lengths"]
    lines = [
        f"{path}",
        f"{found['rows']} rows · {found['format']} · {found['tokens']:,} tokens, "
        f"{found['supervised_tokens']:,} of them trained on",
        f"tokens a row: median {lengths['median']}, 95 % under {lengths['p95']}, longest {lengths['longest']}",
        *(f"{finding.get('level', 'info')}: {finding['text']}" for finding in found["findings"]),
    ]
    answer(as_json, found, "\n".join(lines))
