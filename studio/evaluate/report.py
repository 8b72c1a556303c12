"""The report of an evaluation, wherever the model that answered is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from studio.evaluate.score import in_a_sentence
from studio.foreign import JOB
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json

# Of what a file of a job may hold, for all but the rows.
_RESERVE_BYTES, _RESERVE_NODES = 1024**2, 100_000


def write_report(context: JobContext, run: JobFolder, told: dict[str, Any], seconds: dict[str, float]) -> None:
    """Write report/evaluation.json, and say what it found.

    The scores are of all rows; where the rows are more than a file of a job may hold, the first of them are kept.

    Args:
        context: of the evaluation.
        run: whose model answered.
        told: data, measure, before, after and rows.
        seconds: that the base and the tuned model took.
    """
    report = {"run": run.id, "name": run.request.name, **told}
    report["before"]["seconds"], report["after"]["seconds"] = seconds["base"], seconds["tuned"]
    if (kept := _within_a_file(report["rows"])) < len(report["rows"]):
        context.notice(
            "warning",
            f"the answers of all {len(report['rows']):,} rows are more than a report may hold "
            f"({JOB.bytes // 1024**2} MB): those of the first {kept:,} are kept, and the scores are of all",
        )
        report["rows"] = report["rows"][:kept]
    context.job.report.mkdir(exist_ok=True)
    write_json(context.job.report / "evaluation.json", report)
    context.result("evaluation", {key: report[key] for key in ("run", "before", "after")})
    context.log(in_a_sentence(report))


def _within_a_file(rows: Sequence[dict[str, Any]]) -> int:
    """How many rows, from the first, fit into a file that can be read back."""
    size, nodes = _RESERVE_BYTES, _RESERVE_NODES
    for count, row in enumerate(rows):
        # As `write_json` writes it, four blanks before each line.
        text = json.dumps(row, indent=2, ensure_ascii=False, default=str)
        size += len(text.encode()) + 4 * (text.count("\n") + 1) + 2
        nodes += sum(2 + 2 * (len(value) if isinstance(value, list | dict) else 0) for value in row.values()) + 2
        if size > JOB.bytes or nodes > JOB.nodes:
            return count
    return len(rows)
