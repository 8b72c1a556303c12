"""`studio evaluate` and `studio export`."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from studio.cli.jobs.watch import follow, raise_unless_completed
from studio.cli.output import answer, say, table
from studio.cli.work.train import Json
from studio.config.describe import options_of
from studio.config.jobs import AUTO, HELD_OUT, Destination, EvaluateConfig, ExportConfig, asked_rows, made_for
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.errors import InputError, StudioError
from studio.evaluate.score import in_a_sentence
from studio.export.adapter import require_exportable
from studio.export.delivery.wishes import settled
from studio.export.files import in_words
from studio.export.proof.gates import difference, rare_differences
from studio.export.source import open_source
from studio.jobs import find_job, submit
from studio.jobs.store.files import read_json
from studio.jobs.store.request import ANSWERING_KINDS, ELSEWHERE_KINDS
from studio.settings import Settings, read_settings

FLAGS = {
    "types": "--type", "dtype": "--dtype", "shard_gb": "--shard-gb", "base": "--base", "serve": "--serve",
    "context": "--context", "what": "--what", "repo": "--repo", "private": "--private or --public",
    "overwrite": "--overwrite", "path": "--path", "imatrix": "--imatrix", "shard_size": "--shard-size",
}  # fmt: skip
Run = Annotated[str, typer.Argument(metavar="RUN", help="A training run's id or name.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("evaluate")(evaluate)
    app.command("export")(export)


def evaluate(
    run: Run,
    data: Annotated[
        str, typer.Option("--data", help="File of rows with expected answers; by default the run's validation rows.")
    ] = AUTO,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first N rows.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a run on held-out rows, before and after: exact match, or preference where answers are compared."""
    report = run_evaluation(read_settings(), run, {"data": data, "limit": limit})
    answer(as_json, report, in_a_sentence(report))


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run's id or name; or a model: its folder, a PEFT adapter's, or a downloaded Hub id."
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help=f"Destinations, separated by commas: {', '.join(get_args(Destination))}.")
    ] = "gguf",
    checkpoint: Annotated[
        int | None, typer.Option("--checkpoint", help="Step of a checkpoint; the run's result if not given.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--type", help="GGUF types, separated by commas; q4_k_m if not given.")
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option("--imatrix", help="Importance matrix of GGUF types: auto (where it helps most), on or off."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Precision of a merged checkpoint; the base model's if not given.")
    ] = None,
    shard_gb: Annotated[
        float | None, typer.Option("--shard-gb", help="Maximum size of a file of a merged checkpoint; 1 if not given.")
    ] = None,
    shard_size: Annotated[
        float | None, typer.Option("--shard-size", help="Maximum GB of a GGUF file; a larger one is divided.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Name of the base model that an adapter carries, such as a Hub id.")
    ] = None,
    serve: Annotated[
        str | None, typer.Option("--serve", help="What a server is given: merged (if not given) or adapter.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="Maximum tokens of a conversation on a server; auto if not given.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option("--evaluate", help="File of rows on which the exported model answers too.")
    ] = None,
    what: Annotated[
        str | None,
        typer.Option("--what", help="With --to hub or folder: merged (if not given), adapter or gguf."),
    ] = None,
    repo: Annotated[str | None, typer.Option("--repo", help="Repository on the Hub, as OWNER/NAME.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Who sees a new repository; private if not given.")
    ] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Replace files of a repository that holds some already.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", help="With --to folder: a new or empty folder, or a name ending in .zip.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a run or a model: GGUF files, a checkpoint or the adapter, each proven against what it was made of."""
    destinations = list(dict.fromkeys(_words(to))) or [""]
    asked: dict[str, Any] = {
        "types": _words(types) if types is not None else None, "dtype": dtype, "shard_gb": shard_gb, "base": base,
        "serve": serve, "context": context, "what": what, "repo": repo, "private": private, "overwrite": overwrite,
        "path": path, "imatrix": imatrix, "shard_size": shard_size,
    }  # fmt: skip
    given = {name: value for name, value in asked.items() if value is not None}
    readers = {spec.path: spec.needs[1] for spec in options_of(ExportConfig) if spec.needs is not None}
    reading = {one: {name for name in given if {one, made_for(one, what)} & set(readers[name])} for one in destinations}
    for name in given:
        if not any(name in names for names in reading.values()):
            flag, reader = FLAGS[name], readers[name][0]
            raise InputError(f"{flag} is for --to {reader}", where=flag, fix=f"Omit {flag}, or export --to {reader}")
    shared = {"evaluate": rows, "checkpoint": checkpoint}
    options = [{"to": one, **shared, **{name: given[name] for name in reading[one]}} for one in destinations]
    settings = read_settings()
    configs = [export_config(settings, run, one) for one in options]
    reports = [run_export(settings, config) for config in configs]
    files = [file for report in reports for file in report["files"]]
    answer(as_json, reports[0] if len(reports) == 1 else {"exports": reports}, _export_table(files))
    for report in reports:
        if report.get("delivered"):
            say(put_there(report["delivered"]))
        if made := report.get("imatrix"):
            rows = f"{made['rows']:,} {made.get('of', 'training rows')}"
            say(f"importance matrix of {rows} ({made['tokens']:,} tokens): {made['file']}")
    for one in rare_differences(files):
        say(f"note: {difference(one)}. {one['fix']}.")
    for report in reports:
        if report.get("page"):
            say(f"report: {report['path']}/report/{report['page']}")
        for command in (report.get("serving") or {}).get("commands", []):
            say(f"{command['what']}: {command['text']}")
    failed = [report for report in reports if report["status"] != "completed"]
    for report in failed:
        say(" ".join(filter(None, (report["reason"], report["fix"]))))
    if failed:
        raise typer.Exit(StudioError.exit_code)


def _words(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def run_evaluation(settings: Settings, run: str, options: dict[str, Any]) -> dict[str, Any]:
    """Submit an evaluation, follow it and return its report.

    Args:
        settings: of the home.
        run: id, name or folder of a training run.
        options: of an evaluation; unset ones take their defaults.

    Raises:
        InputError: there is no such run or file, or the run held out no rows and none are named.
        StudioError: it did not complete, or its report has more than a file of the studio may have.
    """
    job = find_job(settings.jobs, run, ANSWERING_KINDS)
    config = build(EvaluateConfig, {"run": job.id, **options})
    if config.data not in (AUTO, HELD_OUT):
        config = config.model_copy(update={"data": str(resolve_path(config.data, settings))})
    elif job.request.kind not in ELSEWHERE_KINDS:  # refused here, before a job is made of it
        asked_rows(config.data, job.training, job.request.name)
    submitted = submit(settings, "evaluate", f"{job.request.name}-evaluation", config.model_dump(mode="json"))
    raise_unless_completed(submitted, follow(submitted))
    try:
        report = read_json(submitted.report / "evaluation.json")
    except ValueError as error:
        raise StudioError(
            f"its report cannot be read: {error}", where=str(submitted.report / "evaluation.json"),
            fix="Evaluate fewer rows at a time (--limit)",
        ) from error  # fmt: skip
    return {"id": submitted.id, "path": str(submitted.path), **report}


def export_config(settings: Settings, run: str, options: dict[str, Any]) -> ExportConfig:
    """Return a checked config of an export.

    Args:
        settings: of the home.
        run: id, name or folder of a training run; or the folder or Hub id of a model.
        options: of an export; unset ones take their defaults.

    Raises:
        InputError: an option is none, or what is named cannot be exported so.
    """
    config = build(ExportConfig, {"run": run, **options})
    source = open_source(settings, run, config.checkpoint)
    config = config.model_copy(update={"run": source.origin.id})
    if config.evaluate is not None:
        config = config.model_copy(update={"evaluate": str(resolve_path(config.evaluate, settings))})
    require_exportable(source, config)
    return settled(config, source, settings)


def run_export(settings: Settings, config: ExportConfig) -> dict[str, Any]:
    """Submit an export, follow it and return its report, which also has the job's `status`, `reason` and `fix`.

    A file that differs from the trained model fails the job, but its report is what the person needs.

    Args:
        settings: of the home.
        config: of `export_config`.

    Raises:
        StudioError: it made no report.
    """
    name = open_source(settings, config.run, config.checkpoint).origin.name
    submitted = submit(settings, "export", f"{name}-{config.to}", config.model_dump(mode="json"))
    state = follow(submitted)
    report = read_json(submitted.report / "export.json")
    if state.status != "failed" or not (report or {}).get("files"):
        raise_unless_completed(submitted, state)
    ended = {"status": state.status, "reason": state.reason, "fix": state.fix}
    return {"id": submitted.id, "path": str(submitted.path), **ended, **(report or {})}


def put_there(delivered: dict[str, Any]) -> str:
    """Where an export was put, as a sentence."""
    size = f"{delivered['files']} files, {in_words(delivered['bytes'])}"
    if delivered["to"] != "hub":
        return f"{delivered['where']}: {size}"
    held = delivered["bytes"] - delivered["sent"]
    there = f", of which {in_words(held)} were there already" if held > 0 else ""
    return f"{delivered['url']} ({'private' if delivered['private'] else 'public'}): {size}{there}"


def _export_table(files: list[dict[str, Any]]) -> Any:
    rows = [
        (
            item["type"], f"{item['bytes'] / 1e6:.0f} MB", _shown(item["top1"], ".1%"), _shown(item["mean_kl"], ".2g"),
            f"{item['exact_match']['correct']} / {item['exact_match']['total']}" if item.get("exact_match") else "–",
            item["verdict"], item["file"],
        )
        for item in files
    ]  # fmt: skip
    return table("type", "size", "same next token", "mean KL", "exact match", "verdict", "file", rows=rows)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
