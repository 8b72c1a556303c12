"""`studio data inspect`, `profile` and `keep`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.output import answer, phase_line, say, stderr
from studio.cli.work.train import Json, Sets
from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.load import run_of
from studio.config.model import EMBEDDED_MODEL
from studio.config.presets import load_named, preset_names
from studio.data.sources.locate import absolute, locate
from studio.data.wire import run_sections
from studio.data.worker.client import DataWorker, OnProgress
from studio.models.catalog.names import require_path, resolve_model
from studio.models.device.machine import device_info
from studio.models.plan.fit import grouping
from studio.settings import Settings, read_settings

group = typer.Typer(help="Look at data before training.", no_args_is_help=True)
Data = Annotated[str, typer.Argument(metavar="FILE|RUN.yaml", help="A data file, a run's YAML file, or a preset.")]


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
            help="A JSON or JSONL file, demo/train.jsonl, dataset_info.json:NAME, or org/name of a Hub dataset.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Model whose tokenizer counts the tokens.")] = EMBEDDED_MODEL,
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a Hub dataset.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of a Hub dataset; by default train.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub dataset.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a file holds: rows, format, lengths, and what is wrong with it. A set of the Hub is fetched for it."""
    settings = read_settings()
    given = {"subset": subset, "split": split, "revision": revision}
    hub = {name: value for name, value in given.items() if value is not None}
    require_path(file, "FILE")
    path = absolute(file, settings)
    with stderr.status("") as status:
        locate(DataSource(path=path, **hub), settings, fetch=lambda *phase: status.update(phase_line(*phase)))
    reference = resolve_model(model, settings, fetch=True)
    with _asking(settings) as (worker, show):
        found = worker.call("inspect", path=path, options=hub, model=str(reference.path), on_progress=show)
    lengths = found["lengths"]
    lines = [
        f"{path}",
        f"{found['rows']} rows · {found['format']} · {found['tokens']:,} tokens, "
        f"{found['supervised_tokens']:,} of them trained on",
        f"tokens per row: median {lengths['median']}, 95 % under {lengths['p95']}, longest {lengths['longest']}",
        *map(finding_line, found["findings"]),
    ]
    answer(as_json, found, "\n".join(lines))


@group.command("profile")
def profile(
    data: Data,
    sets: Sets = [],  # noqa: B006 - typer's way to declare a repeatable option
    sample: Annotated[int, typer.Option("--sample", min=0, help="Rows to sample for a quick answer; 0 for all.")] = 0,
    as_json: Json = False,
) -> None:
    """Say what is in the data of a run and what will be done with it; exits with 1 if the run would refuse it."""
    settings, config = read_settings(), _run(data, sets)
    training = config.training
    micro_batch = training.batch_size if training.micro_batch_size == "auto" else training.micro_batch_size
    with _asking(settings) as (worker, show):
        found = worker.call(
            "profile", on_progress=show, **_sections(config, settings), seed=training.seed,
            micro_batch=micro_batch, sample=sample, **grouping(config, device_info(settings)),
        )  # fmt: skip
    answer(as_json, found, profile_text(found))
    if any(finding["level"] == "error" for finding in found["findings"]):
        raise typer.Exit(1)


@group.command("keep")
def keep(
    data: Data,
    name: Annotated[str, typer.Option("--name", help="Name of the new dataset; a number is added if it is taken.")],
    sets: Sets = [],  # noqa: B006
    format: Annotated[str, typer.Option("--format", help="jsonl or parquet.")] = "jsonl",
    drop: Annotated[
        list[str], typer.Option("--drop", help="Drop the rows with this finding of the profile, such as secret.")
    ] = [],  # noqa: B006
    hide_secrets: Annotated[
        bool, typer.Option("--hide-secrets", help="Replace keys, passwords and email addresses by their kind.")
    ] = False,
    push: Annotated[str, typer.Option("--push", help="Also push it to the Hub as OWNER/NAME, with HF_TOKEN.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Make it public there; otherwise private.")] = False,
    as_json: Json = False,
) -> None:
    """Save a cleaned copy of a run's data, with a manifest of what was dropped and why."""
    settings, config = read_settings(), _run(data, sets)
    with _asking(settings) as (worker, show):
        kept = worker.call(
            "keep", on_progress=show, **_sections(config, settings), name=name, format=format,
            drop=drop, hide_secrets=hide_secrets,
        )  # fmt: skip
        if push:
            kept["push"] = worker.call("push", on_progress=show, name=kept["name"], repo=push, private=not public)
    answer(as_json, kept, kept_text(kept))


def profile_text(found: dict[str, Any]) -> str:
    """A profile as lines for a terminal."""
    tokens, lengths = found["tokens"], found["lengths"]
    sampled = f" ({found['sampled']['text']})" if found["sampled"] else ""
    lines = [
        f"{_counted(found['rows'])}{sampled} · {tokens['total']:,} tokens, {tokens['trained']:,} of them trained on",
        f"tokens per row: median {lengths['median']}, 95 % under {lengths['p95']}, longest {lengths['longest']}, "
        f"limit {lengths['limit']}",
    ]
    if found["padding"]:
        padding, packing = found["padding"], found["packing"]
        lines.append(
            f"in micro-batches of {padding['micro_batch']} {padding['waste']:.1%} would be padding, "
            f"{packing['waste']:.1%} if rows were joined up to the limit"
        )
    for one in found["findings"]:
        where = ", ".join(f"{Path(place['path']).name} row {place['row']}" for place in one["places"][:3])
        lines.append(
            f"{one['level']}, {_counted(one['count'])}: {one['text']} ({one['action']}){where and f': {where}'}"
        )
    return "\n".join(lines)


def finding_line(finding: dict[str, Any]) -> str:
    """A finding as a line for a terminal: how bad, how many rows, what, and what to do."""
    fix = f". {finding['fix']}" if finding["fix"] else ""
    return f"{finding['level']}, {_counted(finding['count'])}: {finding['text']}{fix}"


def kept_text(kept: dict[str, Any]) -> str:
    """What was written, as lines for a terminal."""
    left = ", ".join(f"{count:,} {check}" for check, count in kept["left_out"].items()) or "none"
    lines = [f"{kept['path']}", f"saved {kept['kept']:,} of {_counted(kept['rows'])}; dropped: {left}"]
    if kept["hidden_secrets"]:
        lines.append(f"hidden: {kept['hidden_secrets']:,} keys, passwords or addresses")
    return "\n".join(lines + ([f"pushed to {kept['push']['repo']}"] if "push" in kept else []))


def _counted(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _run(data: str, sets: list[str]) -> RunConfig:
    """The run that a YAML file or preset describes, or one that trains on a file with the defaults."""
    if data in preset_names() or Path(data).suffix in (".yaml", ".yml"):
        return load_named(data, sets, say)
    return run_of({"data": {"train": [{"path": data}]}}, sets, tell=say)


def _sections(config: RunConfig, settings: Settings) -> dict[str, Any]:
    """The sections that the worker asks for, with the model's folder."""
    reference = resolve_model(config.model.path, settings, revision=config.model.revision, fetch=True)
    return run_sections(config, reference.path)


@contextlib.contextmanager
def _asking(settings: Settings) -> Iterator[tuple[DataWorker, OnProgress]]:
    """A data worker, and what shows its progress; a set of many gigabytes takes hours, and Ctrl-C ends it."""
    with stderr.status("reading …") as status, contextlib.closing(DataWorker(settings)) as worker:
        yield worker, lambda *phase: status.update(phase_line(*phase))
