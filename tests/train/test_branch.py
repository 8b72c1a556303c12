"""A branch as a real run: unchanged it ends where the other run did, changed it follows its own schedule from there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import load_file

from studio.cli.main import main
from studio.config import RunConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.jobs import JobFolder, Summaries, find_job, list_jobs, read_events, submit, wait
from studio.jobs.actions import branching
from studio.jobs.actions.branching import branch, extended, find_checkpoint
from studio.jobs.store.request import Branch
from studio.jobs.store.state import write_state
from studio.settings import Settings
from studio.ui.routes import api
from studio.ui.server.services import Services
from tests.parity.made import demo_rows, write_rows

SECONDS = 240
RATE = 1e-3


@pytest.fixture(scope="module")
def parent(tiny: Path, session_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """Two epochs of three steps, each with a checkpoint."""
    rows = write_rows(tmp_path_factory.mktemp("branch") / "rows.jsonl", demo_rows("train.jsonl", 12))
    config = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.0, "max_length": 512},
        "tuning": {"name": "lora", "rank": 8, "dropout": 0.1},
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": RATE, "scheduler": "linear", "warmup": 0.0},
    }
    return done(submit(session_settings, "train", "parent", build(RunConfig, config).model_dump(mode="json")))


def done(job: JobFolder) -> JobFolder:
    assert wait(job, seconds=SECONDS).status == "completed", job.log_path.read_text()
    return job


def changed(parent: JobFolder, **training: object) -> RunConfig:
    raw = dict(parent.request.config)
    return build(RunConfig, {**raw, "training": {**raw["training"], **training}})


def values(job: JobFolder, name: str) -> dict[int, float]:
    events = read_events(job.events_path, 0, 10**8)[0]
    return {
        event["step"]: event["values"][name]
        for event in events
        if event["kind"] == "metric" and name in event["values"]
    }


@pytest.mark.long
def test_a_branch_without_changes_ends_where_the_other_run_did(parent: JobFolder, session_settings: Settings) -> None:
    child = done(branch(session_settings, parent, find_checkpoint(parent, 3), "same", changed(parent), 6))
    ours, theirs = (load_file(job.model / "adapter_model.safetensors") for job in (child, parent))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) <= 1e-6
    assert values(child, "loss") == pytest.approx(values(parent, "loss"), abs=1e-6)
    assert values(child, "learning_rate") == pytest.approx(values(parent, "learning_rate"))


@pytest.mark.long
def test_a_changed_rate_holds_from_the_checkpoint_on(parent: JobFolder, session_settings: Settings) -> None:
    config = changed(parent, learning_rate=RATE / 10)
    child = done(branch(session_settings, parent, find_checkpoint(parent, 3), "slower", config, 6))
    before, after = values(parent, "learning_rate"), values(child, "learning_rate")
    assert [after[step] for step in (1, 2, 3)] == pytest.approx([before[step] for step in (1, 2, 3)])
    assert [after[step] for step in (4, 5, 6)] == pytest.approx([before[step] / 10 for step in (4, 5, 6)])
    assert values(child, "loss")[6] != pytest.approx(values(parent, "loss")[6], abs=1e-6)


@pytest.mark.long
def test_the_first_step_after_the_checkpoint_has_the_new_rate_already(
    parent: JobFolder, session_settings: Settings
) -> None:
    checkpoint = find_checkpoint(parent, 3)
    began = load_file(checkpoint.path / "adapter_model.safetensors")
    config = changed(parent, learning_rate=1e-12, max_steps=4)
    child = done(branch(session_settings, parent, checkpoint, "still", config, 4))
    ended = load_file(child.model / "adapter_model.safetensors")
    assert max(float((ended[name] - began[name]).abs().max()) for name in began) <= 1e-9


@pytest.mark.long
def test_a_finished_run_goes_on_for_another_epoch(parent: JobFolder, session_settings: Settings) -> None:
    model = (parent.model / "adapter_model.safetensors").read_bytes()
    child = done(branch(session_settings, parent, find_checkpoint(parent), "longer", extended(parent, 1), 9))
    rates = values(child, "learning_rate")
    assert list(rates) == list(range(1, 10))
    # The schedule of nine steps, not the end of the one of six.
    assert [rates[step] for step in (7, 8, 9)] == pytest.approx([RATE * (9 - done) / 9 for done in (6, 7, 8)])
    assert all(math.isfinite(loss) for loss in values(child, "loss").values())
    assert (parent.model / "adapter_model.safetensors").read_bytes() == model


@pytest.fixture
def unstarted(parent: JobFolder, session_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is submitted is looked at, not trained."""
    monkeypatch.setattr(branching, "ensure_supervisor", lambda settings: None)
    yield
    for job in list_jobs(session_settings.jobs):
        if job.state().status == "queued":
            write_state(job.state_path, job.state().with_(status="stopped"))


@pytest.mark.long
@pytest.mark.usefixtures("unstarted")
def test_the_command_line_branches_and_extends(
    parent: JobFolder, session_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        return main(["jobs", *arguments, "--json"]), json.loads(capsys.readouterr().out)

    code, answer = run("branch", parent.id, "--step", "3", "--set", "training.learning_rate=1e-5", "--name", "mine")
    assert (code, answer["status"]) == (0, "queued")
    made = find_job(session_settings.jobs, answer["id"])
    assert (made.request.name, made.request.branch) == ("mine", Branch(parent.id, 3))
    assert made.request.config["training"]["learning_rate"] == 1e-5
    code, answer = run("extend", parent.id, "--epochs", "1")
    made = find_job(session_settings.jobs, answer["id"])
    assert (made.request.name, made.request.branch) == ("parent-from-6", Branch(parent.id, 6))
    assert made.request.config["training"]["epochs"] == 3
    code, answer = run("extend", parent.id, "--epochs", "1")
    assert find_job(session_settings.jobs, answer["id"]).request.name == "parent-from-6-2"
    for wrong, said in (
        (["branch", parent.id, "--name", "mine"], "a run 'mine' already exists. Use 'mine-2'"),
        (["branch", parent.id, "--step", "5"], "Available: 3, 6"),
        (["branch", parent.id, "--set", "tuning.rank=4"], "tuning.rank cannot change at a checkpoint"),
        (["branch", parent.id, "--set", "training.epochs=1"], "would end at step 6"),
        (["extend", parent.id, "--epochs", "0"], "not an extension"),
        (["branch", "nobody"], "there is no run 'nobody'"),
    ):
        code, answer = run(*wrong)
        assert code == 2 and said in answer["error"]["sentence"], answer


@pytest.mark.long
@pytest.mark.usefixtures("unstarted")
def test_the_page_extends(parent: JobFolder, session_settings: Settings) -> None:
    app, data = FastAPI(), DataWorker(session_settings)
    services = Services(settings=session_settings, summaries=Summaries(), data=data, chats=None)  # type: ignore[arg-type]
    app.include_router(api.make_router(services))
    page = TestClient(app)
    assert page.get(f"/api/jobs/{parent.id}").json()["checkpoints"] == [3, 6]
    answer = page.post(f"/api/jobs/{parent.id}/extend", json={"epochs": 2})
    assert answer.status_code == 200, answer.text
    made = page.get(f"/api/jobs/{answer.json()['id']}").json()
    assert (made["name"], made["branch"]) == ("parent-4-epochs", {"run": parent.id, "step": 6})
    again = page.post(f"/api/jobs/{parent.id}/extend", json={"epochs": 2}).json()["id"]
    assert page.get(f"/api/jobs/{again}").json()["name"] == "parent-4-epochs-2"
    refused = page.post(f"/api/jobs/{parent.id}/extend", json={"epochs": 0})
    assert refused.status_code == 409 and "above 0" in refused.json()["detail"]
    assert page.post("/api/jobs/none/extend", json={"epochs": 1}).status_code == 404
    data.close()
