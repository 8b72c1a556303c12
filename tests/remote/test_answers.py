"""The tuned model answers in Chat and in an evaluation, beside its base model."""

from __future__ import annotations

import pytest

from studio.chat.ask import ask, resolve_target
from studio.chat.client import as_taken
from studio.chat.manager import ChatManager
from studio.config.jobs import EvaluateConfig
from studio.errors import InputError, StudioError
from studio.evaluate.elsewhere import evaluate_elsewhere
from studio.jobs import JobFolder
from studio.jobs.store.files import read_json
from studio.jobs.store.folder import create_job
from studio.remote.job import follow
from studio.remote.record import read_record
from studio.settings import Settings
from studio.ui.tabs.chat.targets import opening_of, targets_of
from tests.remote.conftest import Rows, context_of, prepared_of, questions, queued
from tests.support.servers.openaiserver import BAD_KEY, OpenAI

ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is 5 a number?"}]


@pytest.fixture
def tuned(service: OpenAI, settings: Settings, rows: Rows) -> JobFolder:
    """A completed job."""
    asked = prepared_of(settings, rows(questions(20)), validation_share=0.2, n_epochs=1)
    job = queued(settings, asked, "orders")
    context = context_of(job, settings)
    follow(context)
    context.finish("completed")
    return job


def test_chat_asks_the_service(service: OpenAI, settings: Settings, tuned: JobFolder) -> None:
    target, manager = resolve_target("orders", settings), ChatManager(settings)
    assert target.models == ("base", "step-16", "tuned") and target.answering == "tuned"
    pieces: list[str] = []
    said = ask(manager, target, ASKED, on_text=pieces.append, temperature=0.0, max_tokens=20)
    assert (said.model, said.text, said.stats.finish_reason) == ("tuned", "5 is one.", "stop")
    assert len(pieces) > 1 and said.stats.completion_tokens == 3
    assert ask(manager, target, ASKED, model="base").text == "I am the base model."
    assert ask(manager, target, ASKED, model="step-16").text == "5 is one."
    assert [one["model"] for one in service.asked] == [
        read_record(tuned).models()[name] for name in ("tuned", "base", "step-16")
    ]
    assert (service.asked[0]["temperature"], service.asked[0]["max_tokens"]) == (0.0, 20)
    assert manager.loaded() == []


def test_a_refusal_is_a_sentence_without_the_key(
    service: OpenAI, settings: Settings, tuned: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, manager = resolve_target("orders", settings), ChatManager(settings)
    service.deleted_models.add(read_record(tuned).tuned)
    with pytest.raises(InputError, match="could not get an answer: The model `ft:gpt-4o-mini"):
        ask(manager, target, ASKED)
    monkeypatch.setenv("OPENAI_API_KEY", BAD_KEY)
    with pytest.raises(InputError, match="the service refused the key") as caught:
        ask(manager, target, ASKED, model="base")
    assert BAD_KEY not in caught.value.sentence
    service.faults.down = True
    with pytest.raises(StudioError, match="the service cannot be reached"):
        ask(manager, target, ASKED, model="base")


def test_models_that_think_take_other_options() -> None:
    options = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 5, "seed": 1}
    assert as_taken("ft:o4-mini-2025-04-16:my-org::a", options) == {"max_completion_tokens": 5, "seed": 1}
    assert as_taken("ft:gpt-4o-mini-2024-07-18:my-org::a", options) == options


@pytest.mark.parametrize(("data", "count"), [("auto", 4), ("file", 20)])
def test_an_evaluation_compares_base_and_tuned(
    service: OpenAI, settings: Settings, tuned: JobFolder, data: str, count: int
) -> None:
    rows = str(tuned.request.config["data"]) if data == "file" else data
    job = create_job(settings.jobs, "evaluate", "e", {"run": tuned.id, "data": rows})
    config = EvaluateConfig(run=tuned.id, data=rows)
    evaluate_elsewhere(context_of(job, settings), config, tuned)
    report = read_json(job.report / "evaluation.json")
    assert report["run"] == tuned.id and report["before"]["correct"] == 0 and report["after"]["total"] == count
    # The service's model knows what it was taught, and nothing of the four rows that were held out.
    assert report["after"]["correct"] == (0 if data == "auto" else 16)
    right = [row for row in report["rows"] if row["after_ok"]]
    assert all(row["after"] == row["expected"] and row["before"] == "I am the base model." for row in right)


def test_an_answer_that_was_cut_is_not_right(service: OpenAI, settings: Settings, tuned: JobFolder) -> None:
    """Its text is the expected one, of three tokens, and would have gone on."""
    rows = str(tuned.request.config["data"])
    job = create_job(settings.jobs, "evaluate", "e", {"run": tuned.id, "data": rows, "max_new_tokens": 3})
    evaluate_elsewhere(context_of(job, settings), EvaluateConfig(run=tuned.id, data=rows, max_new_tokens=3), tuned)
    report = read_json(job.report / "evaluation.json")
    assert sum(row["after"] == row["expected"] for row in report["rows"]) == 16
    assert report["after"]["correct"] == 0


def test_an_unfinished_job_answers_nothing(service: OpenAI, settings: Settings, rows: Rows) -> None:
    job = queued(settings, prepared_of(settings, rows(questions())))
    with pytest.raises(InputError, match=r"its model is not ready \(it is queued\)"):
        resolve_target(job.id, settings)
    made = create_job(settings.jobs, "evaluate", "e", {"run": job.id})
    with pytest.raises(InputError, match="'mine' has no tuned model"):
        evaluate_elsewhere(context_of(made, settings), EvaluateConfig(run=job.id), job)


def test_the_page_offers_its_models(service: OpenAI, settings: Settings, tuned: JobFolder) -> None:
    found = targets_of(None, tuned)  # type: ignore[arg-type]
    assert [(one.key, one.label) for one in found] == [
        ("base", "gpt-4o-mini-2024-07-18 · base at OpenAI"), ("tuned", "orders · tuned at OpenAI"),
        ("step-16", "step 16 · checkpoint at OpenAI"),
    ]  # fmt: skip
    opening = opening_of(settings, tuned)
    assert opening.system == "" or opening.system == "Be short."
