"""The evaluation card without a browser: what it offers, what it submits, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.config import RunConfig
from studio.config.remote import OpenAIConfig, asked_elsewhere
from studio.errors import InputError
from studio.jobs import find_job, list_jobs
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from studio.ui.page import build_page
from studio.ui.server.services import Services
from studio.ui.tabs.training import evaluation
from studio.ui.tabs.training.evaluation import EvaluationCard, card_value
from tests.ui.made_jobs import made_evaluation, made_run


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """What was submitted; nothing is started."""
    jobs: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(evaluation, "submit", lambda settings, kind, name, config: jobs.append((kind, name, config)))
    return jobs


@pytest.fixture
def card(services: Services) -> EvaluationCard:
    with gr.Blocks():
        return EvaluationCard(build_page(services))


def test_evaluate_submits_the_run_and_its_rows(card: EvaluationCard, settings: Settings, submitted: list[Any]) -> None:
    run = made_run(settings.jobs)
    card.submit(run.id, "demo/test.jsonl", "20")
    kind, name, config = submitted[0]
    assert (kind, name, config["run"], config["data"], config["limit"]) == (
        "evaluate", "demo", run.id, "demo/test.jsonl", 20,
    )  # fmt: skip
    card.submit(run.id, None, "")
    assert submitted[1][2]["limit"] is None and submitted[1][2]["data"] == "demo/test.jsonl"


@pytest.mark.parametrize("limit", ["0", "-3", "many", "1.5"])
def test_a_limit_that_is_none_is_named(
    card: EvaluationCard, settings: Settings, submitted: list[Any], limit: str
) -> None:
    with pytest.raises(InputError, match="limit"):
        card.submit(made_run(settings.jobs).id, None, limit)
    assert submitted == []


@pytest.mark.parametrize(
    ("status", "model", "words"),
    [("running", True, "still running"), ("failed", False, "without saving"), ("queued", False, "still queued")],
)
def test_a_run_without_a_model_is_refused(
    card: EvaluationCard, settings: Settings, submitted: list[Any], status: str, model: bool, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        card.submit(made_run(settings.jobs, status=status, model=model).id, None, "")
    with pytest.raises(InputError, match="no run is selected"):
        card.submit("", None, "")
    assert submitted == []


def test_rows_outside_the_roots_are_refused(
    card: EvaluationCard, settings: Settings, submitted: list[Any], tmp_path: Path
) -> None:
    outside = tmp_path / "secret.jsonl"
    outside.write_text("{}\n")
    link = settings.home / "link.jsonl"
    run = made_run(settings.jobs)
    link.symlink_to(outside)
    for path in (outside, link):
        with pytest.raises(InputError, match="may not read"):
            card.submit(run.id, str(path), "")
    with pytest.raises(InputError, match="no file"):
        card.submit(run.id, "demo/tset.jsonl", "")
    assert submitted == []


def test_uploads_are_offered(card: EvaluationCard, settings: Settings) -> None:
    settings.uploads.mkdir(parents=True)
    (settings.uploads / "mine.jsonl").write_text("{}\n")
    _, rows, start = card.refresh(made_run(settings.jobs).id)
    assert [label for label, _ in rows.choices] == ["Demo test rows", "mine.jsonl"] and start.interactive


def test_chosen_rows_stay_while_the_run_is_the_same(
    card: EvaluationCard, settings: Settings, services: Services
) -> None:
    run, other = made_run(settings.jobs), made_run(settings.jobs, "other")
    shown = card_value(services, run)
    _, rows, _ = card.refresh(made_evaluation(settings.jobs, run).id, shown)
    assert rows.choices and "value" not in rows.constructor_args
    _, rows, _ = card.refresh(other.id, shown)
    assert rows.constructor_args["value"] == "demo/test.jsonl"


def test_newest_evaluation_is_first_and_others_runs_are_left_out(settings: Settings, services: Services) -> None:
    run, other = made_run(settings.jobs), made_run(settings.jobs, "other")
    first = made_evaluation(settings.jobs, run)
    made_evaluation(settings.jobs, other)
    second = made_evaluation(settings.jobs, run)
    found = card_value(services, find_job(settings.jobs, run.id))["evaluations"]
    assert [one["id"] for one in found] == sorted([first.id, second.id], reverse=True)
    assert found[0]["what"] == "rows of the demo's test set"


def test_hints_say_what_to_do(settings: Settings, services: Services) -> None:
    assert "list at the left" in card_value(services, None)["hint"]
    waiting = card_value(services, made_run(settings.jobs, status="running"))
    assert waiting["waiting"] and "when the run is done" in waiting["hint"]
    assert "no model" in card_value(services, made_run(settings.jobs, status="failed", model=False))["hint"]


def test_a_folder_that_is_no_job_does_not_break_the_card(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    made_evaluation(settings.jobs, run)
    broken = settings.jobs / "zz-broken"
    broken.mkdir()
    (broken / "state.json").write_text("{}")
    assert len(list_jobs(settings.jobs)) == 3
    assert len(card_value(services, run)["evaluations"]) == 1


def test_the_runs_own_validation_rows_come_first(
    card: EvaluationCard, settings: Settings, submitted: list[Any]
) -> None:
    own = {**RunConfig().model_dump(mode="json")["data"], "train": [{"path": "/own.jsonl"}], "validation": 0.1}
    run = made_run(settings.jobs, data=own)
    _, rows, _ = card.refresh(run.id)
    assert rows.choices[0] == ("Validation rows of this run", "validation") and rows.value == "validation"
    card.submit(run.id, rows.value, "")
    assert submitted[0][2]["data"] == "validation"


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"data": "demo/train.jsonl"}, "demo/test.jsonl"), ({"data": "/a.jsonl", "validation": "/b.jsonl"}, "/b.jsonl"),
        ({"data": "demo/train.jsonl", "validation_share": 0.1}, "validation"), ({"data": "/a.jsonl"}, ""),
    ],
)  # fmt: skip
def test_rows_for_a_model_at_a_service_are_those_that_its_evaluation_takes(
    card: EvaluationCard,
    settings: Settings,
    submitted: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    asked: Any,
    rows: str,
) -> None:
    monkeypatch.setattr(evaluation, "rows_path", lambda settings, path: path)
    config = OpenAIConfig.model_validate(asked).model_dump(mode="json")
    job = create_job(settings.jobs, "openai", "own", config)
    write_json(job.path / "openai.json", {"tuned": "ft:own"})
    write_state(job.state_path, JobState(status="completed"))
    _, offered, _ = card.refresh(job.id)
    assert (offered.value or "") == rows
    if rows:
        card.submit(job.id, None, "")
        assert submitted[0][2]["data"] == rows == asked_elsewhere("auto", config, "own")
    else:
        with pytest.raises(InputError, match=r"held out no rows\. Choose a file of rows"):
            card.submit(job.id, None, "")


def test_a_run_that_held_out_no_rows_asks_for_some(
    card: EvaluationCard, settings: Settings, submitted: list[Any]
) -> None:
    own = {"train": [{"path": "/rows/mine.jsonl"}], "validation": 0}
    run = made_run(settings.jobs, data=RunConfig.model_validate({"data": own}).model_dump(mode="json")["data"])
    _, rows, _ = card.refresh(run.id)
    assert rows.value is None and [label for label, _ in rows.choices] == ["Demo test rows"]
    with pytest.raises(InputError, match=r"held out no rows\. Choose a file of rows"):
        card.submit(run.id, None, "")
    assert submitted == []
