"""The routes behind a notice's buttons: a new run with the change that it offers, and the log around a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.config import RunConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.jobs import JobFolder, Summaries, find_job
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.request import changed_config
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from studio.ui.routes import api
from studio.ui.server.services import Services
from tests.parity.fixtures import tiny
from tests.parity.made import demo_rows, write_rows

__all__ = ["tiny"]
CHANGE = {"training.micro_batch_size": 1}
RATE = {"training.learning_rate": 2e-4}


@pytest.fixture
def page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    # What is submitted here is looked at, not trained.
    monkeypatch.setattr("studio.jobs.actions.client.ensure_supervisor", lambda settings: None)
    app, data = FastAPI(), DataWorker(settings)
    services = Services(settings=settings, summaries=Summaries(), data=data, chats=None)  # type: ignore[arg-type]
    app.include_router(api.make_router(services))
    yield TestClient(app)
    data.close()


def failed_run(settings: Settings, model: str, rows: str, change: dict[str, Any]) -> JobFolder:
    raw = {
        "model": {"path": model, "dtype": "float32"}, "data": {"train": [{"path": rows}], "max_length": 512},
        "training": {"batch_size": 4, "max_steps": 3},
    }  # fmt: skip
    job = create_job(settings.jobs, "train", "demo", build(RunConfig, raw).model_dump(mode="json"))
    writer = EventWriter(job.events_path)
    writer.write("notice", level="warning", text="the loss is flat", fix="Raise it", change=RATE)
    writer.close()
    state = JobState(status="failed", reason="the computer's memory was full", fix="Set it", change=change, line=3)
    write_state(job.state_path, state)
    return job


@pytest.mark.long
def test_it_starts_again_with_the_change_and_only_with_it(page, settings, tiny, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    job = failed_run(settings, str(tiny), str(rows), CHANGE)
    for wrong in ({}, {"training.micro_batch_size": 2}, {"data.train": [{"path": "/etc/passwd"}]}):
        refused = page.post(f"/api/jobs/{job.id}/again", json={"change": wrong})
        assert refused.status_code == 409 and "does not offer" in refused.json()["detail"]
    for change, name in ((CHANGE, "demo-2"), (RATE, "demo-3")):
        answer = page.post(f"/api/jobs/{job.id}/again", json={"change": change})
        assert answer.status_code == 200, answer.text
        made = find_job(settings.jobs, answer.json()["id"])
        assert made.request.name == answer.json()["name"] == name
        assert made.request.config == changed_config(job.request.config, change)
        assert made.state().status == "queued"
    assert page.post("/api/jobs/none/again", json={"change": CHANGE}).status_code == 404
    assert page.get(f"/api/jobs/{job.id}/again").status_code == 405


def test_what_cannot_start_says_why(page, settings, tmp_path) -> None:
    job = failed_run(settings, str(tmp_path / "no-model"), str(tmp_path / "no-rows.jsonl"), CHANGE)
    refused = page.post(f"/api/jobs/{job.id}/again", json={"change": CHANGE})
    assert refused.status_code == 409 and "no-rows.jsonl" in refused.json()["detail"]


def test_the_log_around_a_line(page, settings, tmp_path) -> None:
    job = failed_run(settings, "model", "rows", {})
    assert page.get(f"/api/jobs/{job.id}/log/around?line=5").json()["lines"] == []
    job.log_path.write_text("".join(f"line {number}\n" for number in range(1, 1001)))
    answer = page.get(f"/api/jobs/{job.id}/log/around?line=700").json()
    assert answer["first"] == 500 and answer["lines"][200] == "line 700" and len(answer["lines"]) == 401
    assert page.get(f"/api/jobs/{job.id}/log/around?line=0").status_code == 422
    assert page.get("/api/jobs/none/log/around?line=1").status_code == 404


def test_a_copy_has_the_changes_and_the_original_none() -> None:
    config = {"training": {"epochs": 2, "seed": 1}, "tuning": {"name": "full"}}
    changed = changed_config(config, {"tuning.name": "qlora", "training.epochs": 3, "data.max_length": 5})
    assert changed == {
        "training": {"epochs": 3, "seed": 1}, "tuning": {"name": "qlora"}, "data": {"max_length": 5},
    }  # fmt: skip
    assert config == {"training": {"epochs": 2, "seed": 1}, "tuning": {"name": "full"}}
