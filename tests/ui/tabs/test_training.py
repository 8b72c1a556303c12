"""The one handler of the Training tab, and how a job is worded in the list."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from studio.config.presets import DEMO, load_named
from studio.jobs import JobState, JobSummary, Summaries
from studio.jobs.store.request import JobRequest
from studio.settings import Settings
from studio.ui.routes.runlist import make_row, method_line
from studio.ui.server.services import Services
from studio.ui.tabs.training import tab as training
from studio.ui.text import ordinal, place_words


def test_the_demo_is_queued_without_a_plan_while_its_model_is_not_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    shutil.rmtree(settings.models)

    def submit(*arguments: Any) -> Any:
        asked.append(arguments)
        return type("Job", (), {"id": "the-id"})

    monkeypatch.setattr(training, "submit", submit)
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    assert training.start_demo(services) == "the-id"
    (_, kind, name, config) = asked[0]
    assert (kind, name) == ("train", "demo")
    assert config == load_named(DEMO).model_dump(mode="json")


def test_lines_of_the_list() -> None:
    config = {"method": {"name": "dpo"}, "tuning": {"name": "qlora"}}
    assert method_line(JobRequest("train", "a", config)) == "QLoRA · DPO"
    assert method_line(JobRequest("evaluate", "a", {"run": "demo"})) == "evaluation · demo"
    assert method_line(JobRequest("train", "a", {})) == ""
    row = make_row("id", JobRequest("train", "a", config), JobState(), JobSummary(best=(0.5, 3)))
    assert (row["best"], row["best_step"], row["word"]) == (0.5, 3, "waiting")


def test_places_in_the_line() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th",
    ]  # fmt: skip
    assert place_words(1) == "waiting, next in line"
    assert place_words(3) == "waiting, 3rd in line"
