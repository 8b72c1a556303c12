"""A job at the service from rows to tuned model, through outages and lost answers: nothing is sent or started twice."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError, InputErrors, StoppedError, StudioError
from studio.jobs import JobFolder, Summaries, read_events, request_stop
from studio.remote.asking import adopt, go_on, pause, start, stop
from studio.remote.client import address_of, connect
from studio.remote.job import follow
from studio.remote.record import Journal, read_record
from studio.settings import Settings
from tests.remote.conftest import KEY, Rows, chat, context_of, prepared_of, questions, queued
from tests.support.servers.openaiserver import OpenAI

GRADER = (
    '{"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}", "reference": "x"}'
)


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is submitted waits for the test to run it."""
    for module in ("studio.jobs.actions.client", "studio.remote.asking"):
        monkeypatch.setattr(f"{module}.ensure_supervisor", lambda settings: None)


def run(job: JobFolder, settings: Settings) -> JobFolder:
    follow(context_of(job, settings))
    return job


def metrics_of(job: JobFolder) -> list[dict[str, Any]]:
    return [event for event in read_events(job.events_path)[0] if event["kind"] == "metric"]


def notices_of(job: JobFolder) -> list[str]:
    return [event["text"] for event in read_events(job.events_path)[0] if event["kind"] == "notice"]


def test_a_job_has_the_curves_and_the_models_of_the_service(service: OpenAI, settings: Settings, rows: Rows) -> None:
    asked = prepared_of(settings, rows(questions(20)), validation_share=0.2, n_epochs=2, batch_size=4, suffix="mine",
                        seed=3, learning_rate_multiplier=0.5)  # fmt: skip
    job = run(queued(settings, asked), settings)
    (there,) = service.jobs.values()
    assert there.body["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5,
    }  # fmt: skip
    assert (there.body["suffix"], there.body["seed"], there.body["model"]) == ("mine", 3, "gpt-4o-mini-2024-07-18")
    assert service.contents[there.body["training_file"]] == asked.training
    found = metrics_of(job)
    assert [one["step"] for one in found] == list(range(1, 9)) and found[0]["total_steps"] == 8
    assert found[0]["values"]["loss"] == 2.1 and found[3]["values"]["eval_loss"] == pytest.approx(0.8)
    assert set(found[3]["values"]) >= {"mean_token_accuracy", "eval_mean_token_accuracy"}
    summary = Summaries().of(job)
    assert (summary.step, summary.total_steps) == (8, 8) and summary.best == (pytest.approx(0.55), 8)
    record = read_record(job)
    assert record.status == "succeeded" and record.tuned == there.tuned
    assert list(record.models()) == ["base", "step-4", "step-8", "tuned"]
    assert record.trained_tokens == there.shown()["trained_tokens"]
    assert record.hyperparameters["n_epochs"] == 2


@pytest.mark.parametrize(("method", "data", "more"), [
    ("dpo", "demo/pairs_test.jsonl", {"beta": 0.3}), ("reinforcement", "demo/sums_test.jsonl", {"grader": GRADER}),
])  # fmt: skip
def test_the_other_methods_send_what_is_theirs(
    service: OpenAI, settings: Settings, method: str, data: str, more: dict[str, Any]
) -> None:
    run(queued(settings, prepared_of(settings, data, method=method, n_epochs=1, batch_size=64, **more)), settings)
    (there,) = service.jobs.values()
    sent = there.body["method"][method]
    assert there.status == "succeeded" and there.body["method"]["type"] == method
    assert sent["hyperparameters"].get("beta") == more.get("beta")
    assert ("grader" in sent) == (method == "reinforcement")


def test_a_failure_is_told_in_the_services_words(service: OpenAI, settings: Settings, rows: Rows) -> None:
    job = queued(settings, prepared_of(settings, rows(questions())))
    why = {"code": "invalid_file_format", "message": "Invalid file format. Line 3, message 1: no.", "param": "x"}
    service.hook = lambda number, request, done: [there.errors.append(why) for there in service.jobs.values()
                                                  if there.status == "validating_files"] and None  # fmt: skip
    with pytest.raises(StudioError, match=r"the job failed at the service: Invalid file format. Line 3, message 1"):
        run(job, settings)
    assert read_record(job).status == "failed" and any("Line 3" in text for text in notices_of(job))
    context_of(job, settings).finish("failed")
    start(prepared_of(settings, rows(questions())), settings, "again")  # a failed one may be sent again


FAULTS = [{"broken": 2}, {"limited": 1, "retry_after": 0.1}, {"dropped": 2}, {"lost": 1}, {"lost": 2},
          {"lost": 2, "no_metadata": True}]  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS, ids=str)
def test_faults_lead_to_no_second_file_and_no_second_job(
    service: OpenAI, settings: Settings, rows: Rows, faults: dict[str, Any]
) -> None:
    job = queued(settings, prepared_of(settings, rows(questions(20)), validation_share=0.2, n_epochs=1))
    for name, value in faults.items():
        setattr(service.faults, name, value)
    run(job, settings)
    assert len(service.uploads()) == len(set(service.uploads())) == 2 and len(service.jobs) == 1
    assert read_record(job).status == "succeeded" and len(metrics_of(job)) == 16


def test_a_service_asks_for_time_and_gets_it(service: OpenAI, settings: Settings, rows: Rows) -> None:
    job = queued(settings, prepared_of(settings, rows(questions()), n_epochs=1))
    service.faults.limited, service.faults.retry_after = 1, 1.0
    began = time.monotonic()
    run(job, settings)
    assert time.monotonic() - began >= 1.0


def test_an_outage_is_told_and_waited_out(service: OpenAI, settings: Settings, rows: Rows) -> None:
    service.pace = 0.05
    job = queued(settings, prepared_of(settings, rows(questions()), n_epochs=1))

    def cut() -> None:
        while not metrics_of(job):
            time.sleep(0.01)
        service.faults.down = True
        time.sleep(0.6)
        service.faults.down = False

    thread = threading.Thread(target=cut)
    thread.start()
    run(job, settings)
    thread.join()
    told = notices_of(job)
    assert [text.split(",")[0] for text in told if "responding again" in text] == ["the service is responding again"]
    assert told[0].startswith("the service cannot be reached. The job continues there")
    assert [one["step"] for one in metrics_of(job)] == list(range(1, 13))


@pytest.mark.parametrize(("fault", "said"), [
    ("quota", "You exceeded your current quota.*Add credit"), ("closed", "winding down the fine-tuning platform"),
])  # fmt: skip
def test_a_refusal_ends_the_job_at_once(service: OpenAI, settings: Settings, rows: Rows, fault: str, said: str) -> None:
    setattr(service.faults, fault, True)
    with pytest.raises(StudioError, match=said):
        run(queued(settings, prepared_of(settings, rows(questions()))), settings)


def test_the_same_rows_are_sent_and_started_once(service: OpenAI, settings: Settings, rows: Rows) -> None:
    path = rows(questions())
    job = run(start(prepared_of(settings, path, n_epochs=1), settings, "first"), settings)
    with pytest.raises(InputError, match="'first' has sent these rows with these options already"):
        start(prepared_of(settings, path, n_epochs=1), settings, "second")
    other = start(prepared_of(settings, path, n_epochs=1, seed=5), settings, "third")
    run(other, settings)
    assert len(service.uploads()) == 1 and len(service.jobs) == 2  # the file of the first is used again
    for one in sorted(job.path.rglob("*"), reverse=True):
        one.unlink() if one.is_file() else one.rmdir()
    job.path.rmdir()
    with pytest.raises(InputError, match="adopt ftjob-"):
        start(prepared_of(settings, path, n_epochs=1), settings, "fourth")


def test_a_file_that_was_deleted_there_is_sent_again(service: OpenAI, settings: Settings, rows: Rows) -> None:
    path = rows(questions())
    asked = prepared_of(settings, path, n_epochs=1)
    run(queued(settings, asked), settings)
    sha256 = hashlib.sha256(asked.training).hexdigest()
    first = Journal(settings).file(address_of(None), sha256)["id"]
    connect(address_of(None)).files.delete(first)
    run(queued(settings, prepared_of(settings, path, n_epochs=1, seed=1), "other"), settings)
    assert Journal(settings).file(address_of(None), sha256)["id"] != first and len(service.files) == 1


def test_rows_that_changed_since_they_were_confirmed_are_not_sent(
    service: OpenAI, settings: Settings, rows: Rows
) -> None:
    job = queued(settings, prepared_of(settings, rows(questions())))
    rows([*questions(), chat("Another?", "One.")])
    with pytest.raises(InputError, match="no longer those that were confirmed"):
        run(job, settings)
    assert service.requests == []


def test_pause_resume_and_stop(service: OpenAI, settings: Settings, rows: Rows) -> None:
    service.pace = 0.05
    job = queued(settings, prepared_of(settings, rows(questions(40)), n_epochs=5))
    found: list[BaseException] = []

    def work() -> None:
        try:
            run(job, settings)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not metrics_of(job):
        time.sleep(0.01)
    assert pause(job) == "paused"
    until(lambda: Summaries().of(job).phase == "paused at the service")
    step = Summaries().of(job).step
    time.sleep(0.3)
    assert Summaries().of(job).step == step and Summaries().of(job).progress.share < 0.9
    assert go_on(settings, job) == "it was resumed at the service"
    until(lambda: Summaries().of(job).step > step)
    request_stop(job)
    thread.join(10)
    assert isinstance(found[0], StoppedError) and read_record(job).status == "cancelled"
    (there,) = service.jobs.values()
    assert there.status == "cancelled"


def test_a_stop_without_the_service_says_that_the_job_may_go_on(
    service: OpenAI, settings: Settings, rows: Rows
) -> None:
    service.pace = 0.5
    job = queued(settings, prepared_of(settings, rows(questions())))

    def cut() -> None:
        until(lambda: read_record(job).status == "running")
        service.faults.down = True
        request_stop(job)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(StoppedError, match="may still be running at the service"):
        run(job, settings)
    thread.join()
    service.faults.down = False
    context_of(job, settings).finish("stopped")
    assert stop(settings, job) == "it is cancelled at the service"
    with pytest.raises(InputError, match=r"has already ended \(cancelled\)"):
        stop(settings, job)


def test_a_job_of_elsewhere_is_taken_over_with_all_its_events(service: OpenAI, settings: Settings) -> None:
    kept = service.add_file("x.jsonl", "fine-tune", prepared_of(settings, "demo/train.jsonl").training)
    client = connect(address_of(None))
    service.pace = 0.0001
    id = client.fine_tuning.jobs.create(model="gpt-4o-mini-2024-07-18", training_file=kept["id"]).id
    until(lambda: client.fine_tuning.jobs.retrieve(id).status == "succeeded")
    job = run(adopt(settings, id), settings)
    steps = service.jobs[id].steps
    assert steps > 400  # more than four pages
    summary = Summaries().of(job)
    assert summary.step == steps and read_record(job).tuned == service.jobs[id].tuned
    with pytest.raises(InputError, match="is this job already"):
        adopt(settings, id)
    with pytest.raises(InputError, match="Could not find fine tune: ftjob-none"):
        adopt(settings, "ftjob-none")


def test_the_key_is_written_nowhere(service: OpenAI, settings: Settings, rows: Rows) -> None:
    service.faults.broken = 3
    run(queued(settings, prepared_of(settings, rows(questions()), n_epochs=1)), settings)
    written = [path for path in settings.home.rglob("*") if path.is_file()]
    assert len(written) > 5 and not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in Path(f"/proc/{os.getpid()}/cmdline").read_text()


def test_wrong_rows_never_reach_the_service(service: OpenAI, settings: Settings, rows: Rows) -> None:
    with pytest.raises(InputErrors, match="at least 10 are needed"):
        start(prepared_of(settings, rows(questions(9))), settings, "few")
    assert service.requests == [] and list(settings.jobs.iterdir()) == []


def until(seen: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
