"""`studio demo`: the whole chain without a browser, and a verdict on it.

Train on the demo data, measure before and after, export, prove the files. It fails when any step falls short of
what docs/benchmarks.md promises.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from studio.cli.jobs.watch import follow, raise_unless_completed
from studio.cli.output import answer, say, table
from studio.cli.work.results import export_config, run_evaluation, run_export
from studio.cli.work.train import Json, Sets, checked_run, say_plan, trained_summary
from studio.config.jobs import DEMO_TEST
from studio.config.presets import DEMO, load_named
from studio.errors import InputError, StudioError
from studio.export.source import open_run
from studio.jobs import JobFolder, find_job, read_events, submit
from studio.settings import Settings, read_settings

TYPES = ["f16", "q8_0", "q4_k_m"]
BEFORE_AT_MOST = 0.05
AFTER_AT_LEAST = 0.97
GGUF_MAY_LOSE = 0.03


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo")(demo)


def demo(
    sets: Sets = [],  # noqa: B006
    run_: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A completed run of the demo, instead of a new one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, evaluate and export the demo; ends with 1 at the first step that falls short."""
    settings = read_settings()
    began = time.monotonic()
    if run_ is not None and sets:
        raise InputError("a run that exists cannot be changed", where="--set", fix="Leave out --run or --set")
    run = _train(settings, sets) if run_ is None else open_run(settings, run_)
    evaluation = run_evaluation(settings, run.id, {"data": DEMO_TEST})
    jobs = [run, find_job(settings.jobs, evaluation["id"])]
    short = _short_of_learning(evaluation)
    files: list[dict[str, Any]] = []
    if not short:
        export = run_export(settings, export_config(settings, run.id, {"types": TYPES, "evaluate": DEMO_TEST}))
        jobs.append(find_job(settings.jobs, export["id"]))
        files = export["files"]
        short = _short_of_proof(evaluation["after"]["exact_match"], files)
    result = _result(jobs, evaluation, files, short, time.monotonic() - began)
    answer(as_json, result, _table(result, files))
    if short:
        say("demo: " + "; ".join(short))
        raise typer.Exit(StudioError.exit_code)


def _train(settings: Settings, sets: list[str]) -> JobFolder:
    checked = checked_run(load_named(DEMO, sets, say))
    say_plan(checked)
    job = submit(settings, "train", "demo", checked.config.model_dump(mode="json"))
    raise_unless_completed(job, follow(job))
    return job


def _short_of_learning(evaluation: dict[str, Any]) -> list[str]:
    before, after = evaluation["before"]["exact_match"], evaluation["after"]["exact_match"]
    short = []
    if before >= BEFORE_AT_MOST:
        short.append(f"exact match before is {before:.1%}, which leaves nothing to learn")
    if after < AFTER_AT_LEAST:
        short.append(f"exact match after is {after:.1%}, below {AFTER_AT_LEAST:.0%}")
    return short


def _short_of_proof(after: float, files: list[dict[str, Any]]) -> list[str]:
    short = []
    for item in files:
        match = item["exact_match"]["exact_match"]
        if item["verdict"] == "differs":
            short.append(f"{item['type']} does not answer like the trained model")
        if match < after - GGUF_MAY_LOSE:
            short.append(f"{item['type']} has exact match {match:.1%}, the trained model {after:.1%}")
    return short


def _result(
    jobs: list[JobFolder],
    evaluation: dict[str, Any],
    files: list[dict[str, Any]],
    short: list[str],
    seconds: float,
) -> dict[str, Any]:
    return {
        "ok": not short,
        "short": short,
        "run": jobs[0].id,
        "jobs": [job.id for job in jobs],
        "rows": evaluation["after"]["total"],
        "exact_match": {
            "before": evaluation["before"]["exact_match"],
            "after": evaluation["after"]["exact_match"],
            "gguf": {item["type"]: item["exact_match"]["exact_match"] for item in files},
        },
        "agreement": {item["type"]: {"top1": item["top1"], "mean_kl": item["mean_kl"]} for item in files},
        "training": trained_summary(jobs[0]),
        "seconds": {"total": round(seconds, 1), **_seconds_by_phase(jobs)},
        "peak_memory_gb": max(round(job.environment().get("peak_memory_bytes", 0) / 1e9, 3) for job in jobs),
    }


def _seconds_by_phase(jobs: list[JobFolder]) -> dict[str, float]:
    """Seconds of each phase, named kind.phase, from the jobs' own events."""
    seconds: dict[str, float] = {}
    for job in jobs:
        began: dict[str, float] = {}
        offset = -1
        following = 0
        while following != offset:
            offset = following
            events, following = read_events(job.events_path, offset)
            for event in events:
                if event["kind"] == "phase" and event["state"] == "begin":
                    began[event["phase"]] = event["time"]
                elif event["kind"] == "phase" and event["state"] == "end" and event["phase"] in began:
                    name = f"{job.request.kind}.{event['phase']}"
                    seconds[name] = round(seconds.get(name, 0.0) + event["time"] - began.pop(event["phase"]), 2)
    return seconds


def _table(result: dict[str, Any], files: list[dict[str, Any]]) -> Any:
    match = result["exact_match"]
    rows = [
        ("base model", f"{match['before']:.1%}", ""),
        ("trained model", f"{match['after']:.1%}", ""),
        *((item["type"], f"{match['gguf'][item['type']]:.1%}", item["verdict"]) for item in files),
    ]
    made = table("model", f"exact match on {result['rows']} rows", "verdict", rows=rows)
    made.caption = f"{result['seconds']['total']:.0f} s, peak memory {result['peak_memory_gb']:.1f} GB"
    return made
