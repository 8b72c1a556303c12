"""A report of an evaluation can be read back, however many rows were answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from studio.evaluate import report
from studio.evaluate.report import write_report
from studio.foreign import Limits
from studio.jobs.run.worker import JobContext
from studio.jobs.store import files
from studio.jobs.store.files import read_json
from studio.jobs.store.folder import create_job
from studio.settings import Settings

SMALL = Limits(bytes=1024**2 + 40_000, nodes=100_500)


@pytest.mark.parametrize(("words", "count"), [(200, 600), (1, 2000), (1, 20)])
def test_a_report_keeps_the_rows_that_can_be_read_back_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, words: int, count: int
) -> None:
    monkeypatch.setattr(report, "JOB", SMALL)
    monkeypatch.setattr(files, "JOB", SMALL)
    monkeypatch.setattr(report, "_RESERVE_BYTES", 1024**2)
    run, job = (create_job(settings.jobs, kind, "own", {}) for kind in ("train", "evaluate"))
    notices: list[str] = []
    context = cast(JobContext, SimpleNamespace(
        job=job, notice=lambda level, text: notices.append(text), result=lambda *told: None, log=lambda text: None,
    ))  # fmt: skip
    row = {"prompt": "é,\n" * words, "expected": "{}", "before": "", "after": "a", "before_ok": False, "after_ok": True}
    rows = [{"row": number, **row} for number in range(1, count + 1)]
    scores: dict[str, Any] = {"exact_match": 1.0, "correct": count, "total": count}
    told = {"data": "x", "measure": "exact_match", "before": {**scores}, "after": {**scores}, "rows": rows}
    write_report(context, run, told, {"base": 1.0, "tuned": 1.0})
    read = read_json(job.report / "evaluation.json")
    kept = len(read["rows"])
    assert read["rows"] == rows[:kept] and read["after"]["total"] == count
    if count == 20:
        assert kept == 20 and not notices
    else:
        assert 20 < kept < count and len(notices) == 1
        assert f"answers of all {count:,} rows" in notices[0] and f"first {kept:,} are kept" in notices[0]
