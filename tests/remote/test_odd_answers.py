"""What does not answer as OpenAI does: pages in place of objects, fields and paths that are missing, late stops."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import request_stop
from studio.remote.asking import adopt, go_on, jobs_there
from studio.remote.client import address_of
from studio.remote.job import POLL_VARIABLE, follow
from studio.remote.record import read_record
from studio.settings import Settings
from tests.remote.conftest import KEY, Rows, context_of, prepared_of, questions, queued
from tests.remote.test_job import notices_of, until
from tests.support.servers.openaiserver import OpenAI, _Handler, refusal

Answer = tuple[int, dict[str, Any] | None]
Change = Callable[[Callable[[Any, list[str], Answer], Answer]], None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Has the service answer what a function makes of its answer."""
    usual = _Handler.answer

    def change(made: Callable[[Any, list[str], Answer], Answer]) -> None:
        def answer(self: Any, verb: str, path: list[str], query: dict[str, list[str]], body: bytes) -> Answer:
            return made(self, path, usual(self, verb, path, query, body))

        monkeypatch.setattr(_Handler, "answer", answer)

    return change


@pytest.mark.parametrize(("content", "kind"), [
    (b"<html>Sign in to the network</html>", "text/html"), (b'{"data": [', "application/json"),
    (b"[]", "application/json"), (b"null", "application/json"),
])  # fmt: skip
def test_what_is_no_answer_of_the_api_is_said(
    service: OpenAI, settings: Settings, answers: Change, content: bytes, kind: str
) -> None:
    def page(handler: Any, path: list[str], usual: Answer) -> Answer:
        handler.raw(200, content, kind)
        return 200, None

    answers(page)
    for asked in (lambda: jobs_there(None), lambda: adopt(settings, "ftjob-1")):
        with pytest.raises(StudioError, match="what answers there is not a service of OpenAI's API"):
            asked()


def test_a_page_in_between_is_waited_out(service: OpenAI, settings: Settings, rows: Rows, answers: Change) -> None:
    left = 3

    def page(handler: Any, path: list[str], usual: Answer) -> Answer:
        nonlocal left
        if path[-1] == "events" and left:
            left -= 1
            handler.raw(200, b"<html>", "text/html")
            return 200, None
        return usual

    answers(page)
    job = queued(settings, prepared_of(settings, rows(questions()), n_epochs=1))
    follow(context_of(job, settings))
    assert read_record(job).status == "succeeded" and left == 0


def test_a_service_that_says_less_is_followed(service: OpenAI, settings: Settings, rows: Rows, answers: Change) -> None:
    """No checkpoints, no times, no hyperparameters, no texts, and no metadata by which a job is known."""

    def less(handler: Any, path: list[str], usual: Answer) -> Answer:
        if path[-1] == "checkpoints":
            return refusal(404, "Not found")
        bare = json.loads(json.dumps(usual[1]))
        for one in bare.get("data", [bare]):
            for key in ("created_at", "hyperparameters", "method", "message", "metadata"):
                one.pop(key, None)
        return usual[0], bare

    answers(less)
    service.faults.lost = 2
    job = queued(settings, prepared_of(settings, rows(questions()), n_epochs=1))
    follow(context_of(job, settings))
    record = read_record(job)
    assert (record.status, record.checkpoints, record.hyperparameters) == ("succeeded", [], {})
    assert record.tuned and len(service.jobs) == 1


def test_the_key_is_taken_out_of_what_a_service_says(service: OpenAI, settings: Settings, answers: Change) -> None:
    answers(lambda handler, path, usual: (400, {"detail": f"unknown header\n Bearer {KEY} " + "x" * 5000}))
    with pytest.raises(InputError) as caught:
        adopt(settings, "ftjob-1")
    said = str(caught.value)
    assert said.startswith("could not find ftjob-1: unknown header Bearer … xxx") and KEY not in said
    assert len(said) < 1100


def test_a_job_that_can_no_longer_be_read_is_not_called_over(
    service: OpenAI, settings: Settings, rows: Rows, answers: Change
) -> None:
    answers(lambda handler, path, usual: refusal(401, "no") if path[-1] == "events" else usual)
    job = queued(settings, prepared_of(settings, rows(questions())))
    with pytest.raises(InputError, match="could not read the job's events: the service refused the key"):
        follow(context_of(job, settings))
    assert notices_of(job) == [f"{read_record(job).job} may still be running at the service"]


def test_a_stop_after_the_end_leaves_what_was_made(
    service: OpenAI, settings: Settings, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POLL_VARIABLE, "600")  # it is asked once, while the files are checked
    service.validating = 3600.0
    job = queued(settings, prepared_of(settings, rows(questions()), n_epochs=1))

    def end() -> None:
        until(lambda: any(one.endswith("/events") for one in service.requests))
        (there,) = service.jobs.values()
        there.due = 0.0
        there.tick()
        request_stop(job)

    thread = threading.Thread(target=end)
    thread.start()
    context = context_of(job, settings)
    with pytest.raises(StoppedError, match="the job had already succeeded at the service when the stop arrived"):
        follow(context)
    thread.join()
    context.finish("stopped")
    record = read_record(job)
    assert record.tuned and record.checkpoints == []
    monkeypatch.setattr("studio.remote.asking.ensure_supervisor", lambda settings: None)
    assert go_on(settings, job) == "it is followed again"
    follow(context_of(job, settings))
    assert len(read_record(job).checkpoints) == 1


def test_an_address_or_an_id_that_is_none_is_refused(settings: Settings) -> None:
    for wrong in ("https://:secret@host/v1", "https://ada@host/v1"):
        with pytest.raises(InputError, match="not the address of a service"):
            address_of(wrong)
    with pytest.raises(InputError, match="a job at the service has an id"):
        adopt(settings, " ")
