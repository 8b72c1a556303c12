"""`studio import` and `studio convert`: configs of other tools, in and out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from studio.cli.output import LEFT_OUT, answer, say, table, write
from studio.cli.work.train import Json
from studio.config import RunConfig
from studio.config.load import build
from studio.config.presets import load_named, preset_names
from studio.interop.reading import read_given
from studio.interop.report import Imported, Line
from studio.interop.tools import TOOLS, WRITERS, export_to, import_given
from studio.interop.writing import run_text, write_folder, write_new
from studio.jobs import find_job
from studio.settings import read_settings

_TOOLS = ", ".join(TOOLS)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("import")(import_config)
    app.command("convert")(convert)


def import_config(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|COMMAND", help="A config of another tool, or the line that starts it, in quotes."),
    ],
    out: Annotated[str, typer.Option("--out", help="Write the run to this new YAML file.")] = "",
    tool: Annotated[str, typer.Option("--from", help=f"Whose config it is, if it is not clear: {_TOOLS}.")] = "",
    as_json: Json = False,
) -> None:
    """Read a config of another tool as a run, with what became of each key; exits with 3 if one was left out."""
    imported = import_given(read_given(source), tool)
    text = run_text(imported)
    if out and text:
        write_new(Path(out).expanduser(), text)
    answer(as_json, {**imported.as_dict(), "out": out if text else ""}, report_table(imported.report))
    if not as_json and text and not out:
        write("\n" + text)
    left_out = [line for line in imported.report if line.status in ("refused", "unknown")]
    for line in left_out:
        say(f"{line.status}: {line.key}. {line.why}.".replace("?.", "?"))
    if out and text:
        say(f"{out} is written: studio plan {shlex.quote(out)} checks it, studio train {shlex.quote(out)} starts it")
    for command in export_commands(imported):
        say(f"afterwards: {command}")
    if left_out:
        raise typer.Exit(LEFT_OUT)


def convert(
    source: Annotated[
        str, typer.Argument(metavar="RUN|FILE|PRESET", help="A run's id or name, its YAML file, or a preset.")
    ],
    to: Annotated[str, typer.Option("--to", help=f"The tool: {', '.join(WRITERS)}.")],
    out: Annotated[str, typer.Option("--out", help="Write config and data into this new or empty folder.")] = "",
    as_json: Json = False,
) -> None:
    """Write a run as the config of another tool, with its data as that tool reads it."""
    exported = export_to(_config(source), to)
    if out:
        write_folder(Path(out).expanduser(), exported)
    answer(as_json, {**exported.as_dict(), "out": out}, report_table(exported.report))
    if not as_json and not out:
        for name, text in exported.files.items():
            write(f"\n# {name}\n{text}")
    for line in exported.report:
        if line.status == "refused":
            say(f"refused: {line.key}. {line.why}.")
    if out:
        say(f"{out} is written: cd {shlex.quote(out)} && {exported.command}")
    elif exported.data:
        say(f"--out writes the data, too: {', '.join(exported.data)}")


def _config(source: str) -> RunConfig:
    """The settings of a run of this home, of a YAML file or of a preset."""
    path = Path(source).expanduser()
    if source in preset_names() or path.suffix in (".yaml", ".yml") or path.is_file():
        return load_named(source, tell=say)
    job = find_job(read_settings().jobs, source, "train")
    return build(RunConfig, job.request.config, f"{job.id}/job.yaml")


def report_table(lines: list[Line]) -> Table:
    """What became of each key, for a terminal."""
    return table(
        "key", "status", "where it went", "why",
        rows=[(line.key, line.status, line.to, line.why) for line in lines],
    )  # fmt: skip


def export_commands(imported: Imported) -> list[str]:
    """The commands that export the run as its config says."""
    flags = {"to": "--to", "what": "--what", "path": "--path", "repo": "--repo"}
    return [
        " ".join(["studio export RUN", *(f"{flags[name]} {shlex.quote(str(value))}" for name, value in one.items())])
        for one in imported.exports
    ]
