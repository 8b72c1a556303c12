"""The report of an evaluation, wherever the model that answered is."""

from __future__ import annotations

from typing import Any

from studio.evaluate.score import in_a_sentence
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json


def write_report(context: JobContext, run: JobFolder, told: dict[str, Any], seconds: dict[str, float]) -> None:
    """Write report/evaluation.json, and say what it found.

    Args:
        context: of the evaluation.
        run: whose model answered.
        told: data, measure, before, after and rows.
        seconds: that the base and the tuned model took.
    """
    report = {"run": run.id, "name": run.request.name, **told}
    report["before"]["seconds"], report["after"]["seconds"] = seconds["base"], seconds["tuned"]
    context.job.report.mkdir(exist_ok=True)
    write_json(context.job.report / "evaluation.json", report)
    context.result("evaluation", {key: report[key] for key in ("run", "before", "after")})
    context.log(in_a_sentence(report))
