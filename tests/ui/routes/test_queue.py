"""The line on the page's side: routes, rows, the form filled with a job's settings, saving them, and sweeps."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.config import RunConfig
from studio.config.presets import load_named
from studio.errors import InputError, InputErrors
from studio.jobs import JobFolder, Summaries, list_jobs
from studio.jobs.actions import queue as jobs_queue
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from studio.settings import Settings
from studio.ui import device
from studio.ui.form import fromrun
from studio.ui.form.meta import Meta
from studio.ui.form.planline import Planner
from studio.ui.routes import actions
from studio.ui.routes.api import make_router
from studio.ui.server.services import Services
from studio.ui.tabs.method import sweep
from tests.ui.form.test_form import built


@pytest.fixture
def page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(actions, "ensure_supervisor", lambda settings: None)
    app = FastAPI()
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    app.include_router(make_router(services))
    return TestClient(app)


@pytest.fixture
def planner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """A page's planner; its model is not here yet, so that runs are queued without a plan."""
    monkeypatch.setattr("studio.jobs.actions.client.ensure_supervisor", lambda settings: None)
    shutil.rmtree(settings.models)
    made = built(settings)
    return Planner(made.form, made.services)


def make(settings: Settings, name: str, *sets: str, **more: Any) -> JobFolder:
    config = load_named("demo/sft", list(sets)).model_dump(mode="json")
    return create_job(settings.jobs, "train", name, config, **more)


def test_a_move_is_a_post_and_the_rows_follow(page: TestClient, settings: Settings) -> None:
    a, b, c = make(settings, "a"), make(settings, "b"), make(settings, "c", group="g")
    address = f"/api/jobs/{c.id}/move"
    assert page.get(address).status_code == 405
    for body in ({}, {"to": "top"}, {"to": 1}):
        assert page.post(address, json=body).status_code == 422
    assert page.post(address, content=b'{"to": "first"}', headers={"content-type": "text/plain"}).status_code == 422
    assert page.post("/api/jobs/none/move", json={"to": "up"}).status_code == 404
    assert page.post(address, json={"to": "first"}).json() == {"place": 1}
    rows = {row["name"]: row for row in page.get("/api/jobs").json()}
    assert {name: row["place"] for name, row in rows.items()} == {"c": 1, "a": 2, "b": 3}
    assert rows["c"]["word"] == "waiting, next in line"
    assert (rows["c"]["group"], rows["a"]["group"]) == ("g", "")
    write_state(a.state_path, a.state().with_(status="running", device="cuda:1"))
    answer = page.post(f"/api/jobs/{a.id}/move", json={"to": "up"})
    assert answer.status_code == 409 and "is no longer queued" in answer.json()["detail"]
    rows = {row["name"]: row for row in page.get("/api/jobs").json()}
    assert (rows["a"]["device"], rows["a"]["place"], rows["b"]["place"]) == ("cuda:1", None, 2)
    assert b.state().status == "queued"


def test_rows_follow_new_settings(page: TestClient, settings: Settings) -> None:
    job = make(settings, "a")
    (row,) = page.get("/api/jobs").json()
    assert (row["line"], row["wants"]) == ("LoRA · SFT", "any")
    new = load_named("demo/sft", ["tuning.name=full", "training.device=cuda:1"]).model_dump(mode="json")
    jobs_queue.rewrite(settings, job, new)
    (row,) = page.get("/api/jobs").json()
    assert (row["line"], row["word"]) == ("Full · SFT", "waiting for cuda:1, next in line")


def test_devices_stand_in_the_column_when_there_are_several(settings: Settings) -> None:
    assert device.device_line(settings)["devices"] == []
    two = device.device_line(Settings(**{**vars(settings), "devices": (("cpu", 2),)}))
    assert two["devices"] == ["cpu · processor · 2 jobs at once"]
    assert [word for _, word in device.offered_devices(settings)] == ["any", "cpu"]


def test_the_form_is_filled_and_given_back(planner: Planner, settings: Settings) -> None:
    form = planner.form
    job = make(settings, "mine", "training.epochs=4", "tuning.rank=8")
    mine = {**form.start, "training.epochs": "half ty"}
    *values, reply = fromrun.filled(form, settings, {"job": job.id, "edit": False, "number": 1, "name": "x"}, mine)
    assert form.config(form.raw(values)) == RunConfig.model_validate(job.request.config)
    told = json.loads(reply)
    assert (told["job"], told["edit"], told["name"], told["title"]) == (job.id, False, "mine-2", "mine")
    *values, reply = fromrun.filled(form, settings, {"back": told["kept"], "number": 2}, form.raw(values))
    assert form.raw(values) == mine
    assert json.loads(reply) == {"number": 2, "job": "", "edit": False, "name": "x"}
    for broken in (None, 3, {"values": []}):
        assert len(fromrun.filled(form, settings, {"back": broken, "number": 3}, mine)) == len(form.specs) + 1


def test_what_cannot_be_taken_is_a_sentence(planner: Planner, settings: Settings) -> None:
    form = planner.form
    job = make(settings, "mine")
    export = create_job(settings.jobs, "export", "file", {"run": "mine"})
    for wanted in ("none", "../../etc", export.id):
        with pytest.raises(InputError, match="no longer exists"):
            fromrun.filled(form, settings, {"job": wanted, "edit": False, "number": 1}, form.start)
    write_state(job.state_path, job.state().with_(status="running"))
    with pytest.raises(InputError, match="has already started"):
        fromrun.filled(form, settings, {"job": job.id, "edit": True, "number": 1}, form.start)
    (job.path / "job.yaml").write_text("kind: train\nname: mine\nconfig: {training: {epoch: 3}}\n")
    with pytest.raises(InputErrors) as caught:
        fromrun.filled(form, settings, {"job": job.id, "edit": False, "number": 1}, form.start)
    assert "Did you mean 'training.epochs'?" in caught.value.sentence


def test_settings_are_saved_where_they_wait(planner: Planner, settings: Settings) -> None:
    job = make(settings, "mine")
    values = {**planner.form.start, "training.epochs": 4}
    assert planner.start(values, Meta(edit=job.id, sweep={"tuning.rank": "8, 16"})) == job.id
    assert JobFolder(job.path).request.config["training"]["epochs"] == 4
    assert len(list_jobs(settings.jobs)) == 1
    with pytest.raises(InputErrors):
        planner.start({**values, "training.epochs": -1}, Meta(edit=job.id))
    with pytest.raises(InputError, match="there is no device 'cuda:4' here"):
        planner.start({**values, "training.device": "cuda:4"}, Meta(edit=job.id))
    write_state(job.state_path, job.state().with_(status="starting"))
    with pytest.raises(InputError, match="has already started"):
        planner.start({**values, "training.epochs": 5}, Meta(edit=job.id))
    assert JobFolder(job.path).request.config["training"]["epochs"] == 4


def test_a_sweep_says_what_it_makes_and_queues_it(planner: Planner, settings: Settings) -> None:
    values, typed = planner.form.start, {"training.learning_rate": "1e-4, 2e-4", "tuning.rank": "8,16,32"}
    shown = planner.payload(values, Meta(name="grid", sweep=typed))
    assert shown["errors"] == [] and shown["sweep"]["count"] == 6 and shown["sweep"]["seconds"] is None
    assert shown["sweep"]["names"][0] == "grid-learning_rate-0.0001-rank-8"
    planner.start(values, Meta(name="grid", sweep=typed))
    made = list_jobs(settings.jobs)
    assert {job.request.name for job in made} == set(shown["sweep"]["names"])
    assert len({job.request.group for job in made}) == 1
    assert planner.payload(values, Meta(name="grid", sweep=typed))["sweep"]["names"][0].startswith("grid-2-")


def test_a_wrong_sweep_is_said_with_its_option_and_queues_nothing(planner: Planner, settings: Settings) -> None:
    typed = {"training.learning_rate": "1e-4, 7", "tuning.rank": "[8"}
    (error,) = planner.payload(planner.form.start, Meta(sweep=typed))["errors"]
    assert error["field"] == "f-tuning-rank" and "not a list of values" in error["sentence"]
    typed["tuning.rank"] = "8, 9999"
    errors = planner.payload(planner.form.start, Meta(sweep=typed))["errors"]
    assert {error["field"] for error in errors} == {"f-training-learning_rate", "f-tuning-rank"}
    outside = {"model.path": "/etc, smollm2-135m-instruct"}
    assert "outside" in planner.payload(planner.form.start, Meta(sweep=outside))["errors"][0]["sentence"]
    for wrong in (typed, outside):
        with pytest.raises(InputErrors):
            planner.start(planner.form.start, Meta(sweep=wrong))
    assert list_jobs(settings.jobs) == []


def test_time_is_guessed_from_the_runs_that_were_planned(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = {"tuning.rank": "8, 16, 32"}
    times = iter((30.0, None, 50.0))
    found = sweep.estimate(settings, RunConfig(), "a", typed, lambda config: next(times))
    assert (found["count"], found["seconds"]) == (3, 120.0)
    monkeypatch.setattr(sweep, "PLAN_SECONDS", 0.0)
    assert sweep.estimate(settings, RunConfig(), "a", typed, lambda config: 10.0)["seconds"] is None


def test_meta_carries_edit_and_sweep() -> None:
    text = {"name": "x", "sequence": 1, "row": 1, "set": {}, "edit": "id", "sweep": {"tuning.rank": "8, 16"}}
    assert Meta.read(json.dumps(text)) == Meta("x", 1, edit="id", sweep={"tuning.rank": "8, 16"})
    assert Meta.read(json.dumps({**text, "sweep": [1]})) == Meta()
