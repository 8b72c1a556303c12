"""kill -9 of supervisor and job at every request: no second upload, no second job, no lost job."""

from __future__ import annotations

import os
import signal
import time

import pytest

from studio.jobs import JobFolder, read_events, wait
from studio.jobs.actions.client import ensure_supervisor, supervisor_record
from studio.jobs.store.files import read_json
from studio.remote.asking import start
from studio.remote.record import read_record
from studio.settings import Settings
from tests.remote.conftest import Rows, prepared_of, questions
from tests.support.servers.openaiserver import OpenAI

# Requests of a job: list and upload of two files (4), the start, then its state and events in turn. Each is a moment
# before it is done and one after it, when its answer is lost with the process.
MOMENTS = [(number, done) for number in range(1, 11) for done in (False, True)]
EVERYDAY = [(5, True)]


def kill_at(service: OpenAI, settings: Settings, jobs: list[JobFolder], number: int, done: bool) -> list[int]:
    """Kill everything once, at a request; returns the list that gets the ids of what was killed."""
    killed: list[int] = []

    def hook(now: int, request: str, is_done: bool) -> None:
        if killed or (now, is_done) != (number, done):
            return
        pids = [int(read_json(supervisor_record(settings.home))["pid"]), jobs[0].state().pid or 0]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        killed.extend(pids)

    service.hook = hook
    return killed


@pytest.mark.parametrize(
    ("number", "done"),
    [pytest.param(*one, marks=[] if one in EVERYDAY else pytest.mark.long) for one in MOMENTS],
)
def test_everything_is_killed_and_nothing_is_lost(
    service: OpenAI, settings: Settings, rows: Rows, number: int, done: bool
) -> None:
    service.pace = 0.03
    asked = prepared_of(settings, rows(questions(30)), validation_share=0.2, n_epochs=1)
    jobs: list[JobFolder] = []
    killed = kill_at(service, settings, jobs, number, done)
    service.lock.acquire()  # no request is answered before the test knows the job
    try:
        jobs.append(start(asked, settings, "killed"))
    finally:
        service.lock.release()
    end = time.monotonic() + 60
    while not killed:
        assert time.monotonic() < end, "that moment never came"
        time.sleep(0.05)
    ensure_supervisor(settings)  # what the page does every few seconds, and each command on such a job
    state = wait(jobs[0], 90)
    assert (state.status, state.attempt) == ("completed", 2), state
    assert len(service.uploads()) == len(set(service.uploads())) == 2
    assert len(service.jobs) == 1 and read_record(jobs[0]).job in service.jobs
    steps = [event["step"] for event in read_events(jobs[0].events_path)[0] if event["kind"] == "metric"]
    assert steps == list(range(1, 25))
