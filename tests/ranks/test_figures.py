"""What each rank does is told as events, and each one's log is a file of the job, for the page and for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.jobs.run.worker import JobContext
from studio.jobs.store.events import read_events
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from studio.train.loop.devices import RankFigures
from studio.train.ranks.ends import log_of, ranks_with_logs
from tests.ranks.made import config, events, ran


def told(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / "events.jsonl")[0] if event["kind"] == "ranks"]


def test_figures_are_told_every_few_seconds_and_at_the_end(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "figures", {})
    figures = RankFigures(JobContext(job, settings))
    for step in range(1, 6):
        figures.tell(step, 300 * step, 0.5, last=step == 5)
    first, last = told(job.path)
    assert (first["step"], last["step"]) == (1, 5)
    (rank,) = last["ranks"]
    assert rank["tokens_per_second"] == 600.0 and rank["memory"] > 0.05
    assert rank["of"] is None and rank["busy"] is None, "a process on a CPU shares both"
    figures.tell(6, 0, 0.5, last=True)
    assert told(job.path)[-1]["ranks"][0]["tokens_per_second"] is None, "a trainer that does not count by rank"


@pytest.mark.parametrize("ranks", ["many", [1], [{"memory": "much"}], [{"memory": float("nan")}], None])
def test_an_event_of_ranks_that_is_none_is_not_read_as_one(tmp_path: Path, ranks: object) -> None:
    line = json.dumps({"seq": 1, "time": 1.0, "kind": "ranks", "step": 1, "ranks": ranks})
    (tmp_path / "events.jsonl").write_text(line + "\n")
    (event,), _ = read_events(tmp_path / "events.jsonl")
    assert event["kind"] == "notice"


def test_logs_of_ranks_are_found_by_their_names(tmp_path: Path) -> None:
    assert ranks_with_logs(tmp_path) == [0]
    (tmp_path / "ranks").mkdir()
    for name in ("rank-10.log", "rank-2.log", "rank-1.json", "rank-x.log", "rank-0.log", "rank-99999.log"):
        (tmp_path / "ranks" / name).touch()
    assert ranks_with_logs(tmp_path) == [0, 2, 10]
    assert log_of(tmp_path, 0) == tmp_path / "log.txt"


@pytest.mark.long
def test_two_ranks_tell_what_each_does(tiny: Path, session_settings: Settings, tmp_path: Path) -> None:
    job = ran(session_settings, "told-ranks", config(tiny, tmp_path), devices=2)
    last = [event for event in events(job) if event["kind"] == "ranks"][-1]
    whole = [event for event in events(job) if event["kind"] == "metric"][-1]
    assert last["step"] == whole["step"] and len(last["ranks"]) == 2
    speeds = [rank["tokens_per_second"] for rank in last["ranks"]]
    assert min(speeds) > 0 and 0.5 < speeds[0] / speeds[1] < 2, "rows are dealt out by length"
    assert all(rank["memory"] > 0.1 for rank in last["ranks"])
    assert ranks_with_logs(job.path) == [0, 1]
