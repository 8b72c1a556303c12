"""What an evaluation of the run found, before and after training: for the text of a card and for its front matter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.data.files.datafiles import resolve_path
from studio.errors import InputError
from studio.escaping import for_markdown
from studio.export.cards.facts import name_of
from studio.export.files import newest
from studio.jobs import JobFolder
from studio.jobs.store.files import read_json
from studio.jobs.store.finding import jobs_of_kind
from studio.settings import Settings

# What the Hub calls a measure, what people call it, and where the report has it.
MEASURES = (
    ("exact_match", "Exact match", "exact_match"),
    ("preference_accuracy", "Preference accuracy", "preference_accuracy"),
)


def evaluation_of(settings: Settings, run: JobFolder) -> dict[str, Any] | None:
    """Return the newest complete evaluation of the run's present model, without its rows; None if there is none.

    One that began before the model was written is of an older model, and one that cannot be read counts as none.

    Args:
        settings: of the home whose evaluations are searched.
        run: the exported run.
    """
    for report in _reports(settings, run):
        if report.get("before") and report.get("after"):
            return {"data": str(report.get("data", "")), "before": report["before"], "after": report["after"]}
    return None


def evaluation_on(settings: Settings, run: JobFolder, rows: Path) -> dict[str, Any] | None:
    """The report of the newest evaluation of the trained model on all rows of the same file; None without one.

    Args:
        settings: of the home whose evaluations are searched.
        run: the exported run.
        rows: the file.
    """
    for report in _reports(settings, run):
        exact = "exact_match" in (report.get("after") or {})
        if exact and _same_file(str(report.get("data", "")), rows, settings):
            return report
    return None


def _reports(settings: Settings, run: JobFolder) -> Iterator[dict[str, Any]]:
    """The reports of completed evaluations of a run's present model on all of their rows, newest first."""
    trained = newest(run.model)
    for job in jobs_of_kind(settings.jobs, "evaluate"):
        state = job.state()
        if state.status != "completed" or (state.started or state.created) < trained:
            continue
        try:
            whole = job.request.config.get("limit") is None
            report = read_json(job.report / "evaluation.json") if whole else None
        except (OSError, ValueError, InputError):  # that of another run must not stop an export
            continue
        if isinstance(report, dict) and report.get("run") == run.id:
            yield report


def _same_file(named: str, path: Path, settings: Settings) -> bool:
    try:
        return resolve_path(named, settings).samefile(path)
    except (InputError, OSError):
        return False


def evaluation_text(evaluation: dict[str, Any]) -> str:
    """The section on the evaluation: the same rows before and after training."""
    before, after = evaluation["before"], evaluation["after"]
    lines = ["| measure | before training | after training |", "|---|---|---|"]
    lines += [
        f"| {title} | {_share(before, key)} | {_share(after, key)} |" for _, title, key in MEASURES if key in after
    ]
    rows = "validation rows" if evaluation["data"] == "validation" else for_markdown(name_of(evaluation["data"]))
    return "\n".join([f"{after['total']:,} rows of {rows}.", "", *lines])


def results(evaluation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The evaluation as the front matter's model-index has it; empty without one."""
    if evaluation is None:
        return []
    after, data = evaluation["after"], name_of(evaluation["data"])
    metrics = [
        {"type": kind, "name": title, "value": round(float(after[key]), 6)}
        for kind, title, key in MEASURES if key in after
    ]  # fmt: skip
    dataset = {"name": data, "type": data}
    return [{"task": {"type": "text-generation", "name": "Text generation"}, "dataset": dataset, "metrics": metrics}]


def _share(side: dict[str, Any], key: str) -> str:
    count = f" ({side['correct']:,} of {side['total']:,})" if "correct" in side else ""
    return f"{side[key]:.1%}{count}" if key in side else "–"
