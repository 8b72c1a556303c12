"""Profile and cleaned copy without a browser: what is drawn, the requests, the tasks over a real data worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.data.quality.keep import DROPPABLE
from studio.data.worker.pool import DataPool
from studio.errors import InputError, InputErrors, StudioError
from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.page import Page, build_page
from studio.ui.routes.api import make_router
from studio.ui.server.services import Services
from studio.ui.tabs.data import tab as data
from studio.ui.tabs.data.keep import LABELS, kept_value, trained_on
from studio.ui.tabs.data.profile import place_of, profile_value
from studio.ui.tabs.data.taskcard import Asked, refusal, sections_of
from studio.ui.tabs.data.tasks import told
from studio.ui.tabs.method import tab as method
from studio.ui.tabs.model import tab as model

HOSTILE = "<img src=x onerror=alert(1)>"


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def services(session_settings: Settings) -> Iterator[Services]:
    worker = DataPool(session_settings, confined=True)
    made = Services(settings=session_settings, summaries=Summaries(), data=worker, chats=None)  # type: ignore[arg-type]
    yield made
    made.tasks.close()
    worker.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    app = FastAPI()
    app.include_router(make_router(services))
    return TestClient(app)


@pytest.fixture
def sections(session_settings: Settings, model_path: Path) -> Callable[..., dict[str, Any]]:
    def make(rows: list[dict[str, Any]], name: str = "rows") -> dict[str, Any]:
        session_settings.uploads.mkdir(parents=True, exist_ok=True)
        file = session_settings.uploads / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        data = {"train": [{"path": str(file)}], "validation": 0, "max_length": 64}
        return {"data": data, "method": {"name": "sft"}, "model": {"path": str(model_path)}}

    return make


def polled(client: TestClient, path: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        now: dict[str, Any] = client.get(path).json()
        if until(now):
            return now
        time.sleep(0.05)
    raise AssertionError(f"not in time: {now}")


def test_a_profile_is_begun_polled_and_its_pairs_opened(
    services: Services, client: TestClient, sections: Callable[..., dict[str, Any]]
) -> None:
    rows = [chat(f"Say {n}.", f"{n}!") for n in range(6)]
    args = sections([*rows, rows[1], chat(HOSTILE, ""), chat("Long?", "very long " * 60)])
    calls = [("profile", {**args, "sample": 100}), ("profile", args)]
    services.tasks.begin("p1", "profile", calls, profile_value)
    assert client.get("/api/data/p1/profile").json()["state"] == "running"
    now = polled(client, "/api/data/p1/profile", lambda one: one["state"] != "running")
    assert (now["state"], now["count"], now["error"]) == ("done", 2, "")
    assert client.get("/api/data/p1/profile?after=2").json()["shown"] is None
    shown = now["shown"]
    assert shown["from"] == "" and shown["doubles"] == 1
    findings = {one["check"]: one for one in shown["findings"]}
    assert list(findings) == ["empty_answer", "too_long", "duplicate"]
    assert findings["too_long"]["now"] == "Refused: the run does not start."
    assert findings["too_long"]["actions"][1] == {"label": "Drop them", "set": {"data.truncation": "drop"}}
    assert findings["empty_answer"]["places"] == [{"source": 0, "at": 8, "label": "row 8"}]
    assert shown["checks"]["duplicate"] == 1
    (pairs,) = shown["pairs"]
    assert pairs["pairs"][0]["label"] == "row 2 and row 7: equal"
    opened = client.get("/api/data/p1/pair?first=0:2&second=0:7").json()
    assert opened["error"] == "" and opened["sides"][0]["texts"] == [["user", "Say 1."], ["assistant", "1!"]]
    assert opened["sides"][1]["title"] == "rows.jsonl, row 7"
    assert "there is no row 70" in client.get("/api/data/p1/pair?first=0:2&second=0:70").json()["error"]
    assert "does not identify a row" in client.get("/api/data/p1/pair?first=0:2&second=x").json()["error"]


def test_cancel_ends_the_work_and_the_worker_stays(
    services: Services, client: TestClient, sections: Callable[..., dict[str, Any]]
) -> None:
    args = sections([chat(f"What is {n}?", f"It is {n}.") for n in range(30_000)], "many")
    services.tasks.begin("p2", "profile", [("profile", args)], profile_value)
    polled(client, "/api/data/p2/profile", lambda one: "row" in one["text"])
    pids = services.data.pids
    assert client.post("/api/data/p2/profile/cancel").status_code == 200
    assert polled(client, "/api/data/p2/profile", lambda one: one["state"] != "running")["state"] == "stopped"
    assert services.data.call("ping", timeout=20)["pid"] in pids
    assert not services.tasks.busy


def test_a_newer_task_of_a_page_ends_its_older_one(
    services: Services, client: TestClient, sections: Callable[..., dict[str, Any]]
) -> None:
    many = sections([chat(f"What is {n}?", f"It is {n}.") for n in range(30_000)], "many")
    few = sections([chat("Say 1.", "1!"), chat("Say 2.", "2!")], "few")
    older = services.tasks.begin("p3", "profile", [("profile", {**many, "seed": 7})], profile_value)
    newer = services.tasks.begin("p3", "profile", [("profile", few)], profile_value)
    now = polled(client, "/api/data/p3/profile", lambda one: one["state"] != "running")
    assert (now["state"], newer.answers[0]["rows"]) == ("done", 2)
    assert older.state == "stopped" and older.answers == []


def test_keep_fails_with_a_sentence_or_writes_what_can_be_trained_on(
    services: Services, client: TestClient, sections: Callable[..., dict[str, Any]], session_settings: Settings
) -> None:
    args = sections([chat("Say 1.", "1!"), chat("Say 2.", ""), chat("Say 3.", "3!")], "bad")
    asked = {**args, "name": "card", "format": "jsonl", "drop": [], "hide_secrets": False}
    services.tasks.begin("p4", "keep", [("keep", asked)], kept_value)
    now = polled(client, "/api/data/p4/keep", lambda one: one["state"] != "running")
    assert now["state"] == "failed" and "bad.jsonl, row 2" in now["error"] and "drop: empty_answer" in now["error"]
    task = services.tasks.begin("p4", "keep", [("keep", {**asked, "drop": ["empty_answer"]})], kept_value)
    now = polled(client, "/api/data/p4/keep", lambda one: one["state"] != "running")
    assert now["shown"]["figures"][:2] == [["Saved", "2 of 3 rows"], ["Dropped", "an empty answer (1)"]]
    train, validation = trained_on(task.answers[-1])
    assert train == [{"path": str(session_settings.home / "data" / "card" / "train.jsonl"), "format": "auto"}]
    assert Path(train[0]["path"]).read_text().count("\n") == 2 and not isinstance(validation, str)


def test_closing_removes_a_copy_that_is_half_written(
    client: TestClient, services: Services, sections: Callable[..., dict[str, Any]], session_settings: Settings
) -> None:
    args = sections([chat(f"What is {n}?", f"It is {n}.") for n in range(30_000)], "many")
    asked = {**args, "name": "half", "format": "jsonl", "drop": [], "hide_secrets": False}
    task = services.tasks.begin("p6", "keep", [("keep", asked)], kept_value)
    polled(client, "/api/data/p6/keep", lambda one: "row" in one["text"])
    assert (session_settings.home / "data" / "half").exists()
    services.tasks.close()
    assert task.state == "stopped"
    assert not (session_settings.home / "data" / "half").exists()


def test_the_page_may_read_only_below_the_roots(
    services: Services, client: TestClient, sections: Callable[..., dict[str, Any]]
) -> None:
    args = sections([chat("Say 1.", "1!")], "few")
    args["data"]["train"] = [{"path": "/etc/passwd"}]
    services.tasks.begin("p5", "profile", [("profile", args)], profile_value)
    now = polled(client, "/api/data/p5/profile", lambda one: one["state"] != "running")
    assert now["state"] == "failed" and "may not read files there" in now["error"]


@pytest.fixture(scope="module")
def page(services: Services, model_path: Path) -> Page:
    """A page whose set-up tabs are built."""
    with gr.Blocks():
        made = build_page(services)
        with gr.Tabs() as made.tabs:
            for name, module in (("model", model), ("data", data), ("method", method)):
                with gr.Tab(name, id=name):
                    module.build(made)
    return made


def test_only_what_the_data_depends_on_must_be_right(page: Page) -> None:
    start = page.form.start
    sections, seed, micro = sections_of(page, {**start, "training.epochs": "x", "training.seed": 7})
    assert list(sections) == ["data", "method", "model"] and (seed, micro) == (7, 8)
    assert sections_of(page, {**start, "training.micro_batch_size": "2"})[2] == 2
    with pytest.raises(InputErrors) as wrong:
        sections_of(page, {**start, "data.max_length": 1, "training.epochs": "x"})
    assert refusal(page.form, wrong.value)["error"].startswith("Maximum length: ")
    with pytest.raises(StudioError, match="as soon as the model is here"):
        sections_of(page, {**start, "model.path": "someone/some-model"})


def test_unknown_work_is_not_found(client: TestClient) -> None:
    for path in ("/api/data/nobody/profile", "/api/data/nobody/pair?first=0:1&second=0:2"):
        assert client.get(path).status_code == 404
    assert client.post("/api/data/nobody/profile/cancel").status_code == 200


def test_every_check_that_rows_can_be_left_out_by_has_a_label() -> None:
    assert set(LABELS) == set(DROPPABLE)
    assert len(set(LABELS.values())) == len(LABELS)


def test_progress_as_text() -> None:
    assert told("profile", 512, None, [{"sampled": {"of": 2048}}]) == ("reading row 512 of 2,048", 0.25)
    assert told("profile", 512, None, [{"sampled": {"of": None}}]) == ("reading row 512", None)
    assert told("writing", 10, None, []) == ("writing row 10", None)
    assert told("making the model ready", 1, 4, []) == ("making the model ready, 25%", 0.25)


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "a:1", "-1:2", "1:" + "9" * 20, "¹:1"])
def test_a_place_of_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        place_of(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"page": "a"}', '{"page": "a", "number": "x"}', None])
def test_a_request_of_another_script_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="Reload the page"):
        Asked.read(text)
