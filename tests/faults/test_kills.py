"""kill -9 of the worker, the web process, the supervisor, and of several at once, at fifty moments of a short run.

Whatever was killed: after going on, the adapter is that of the undisturbed run, no event is missing or doubled, and the
page's own route gives exactly what the files hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from studio.jobs import JobFolder, submit, wait
from tests.faults.processes import supervisors
from tests.train.test_killed import SECONDS, equal, reached

if TYPE_CHECKING:
    from tests.browser.conftest import Server

MOMENTS = 50
TARGETS = (
    ("worker",), ("web",), ("supervisor",), ("worker", "web"), ("worker", "supervisor"),
    ("worker", "web", "supervisor"),
)  # fmt: skip


def kill(target: str, job: JobFolder, web: Server) -> None:
    if target == "web":
        web.end(signal.SIGKILL)
    elif target == "supervisor":
        for process in supervisors(web.home):
            process.kill()
    elif (pid := job.state().pid) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until_running(job: JobFolder, *, trains: bool) -> bool:
    """Wait until this attempt's process is there, or trains; False when it is over before."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        state = job.state()
        if state.final:
            return False
        if state.pid is not None and state.status == "running":
            begun = [one["time"] for one in reached(job) if one["kind"] == "phase" and one["phase"] == "training"]
            if not trains or any(at >= (state.started or 0.0) for at in begun):
                return True
        time.sleep(0.02)
    pytest.fail("it did not begin")


def told(web: Server, job: JobFolder) -> list[dict[str, Any]]:
    """The events as the page gets them."""
    events: list[dict[str, Any]] = []
    after, more = 0, True
    while more:
        with urllib.request.urlopen(f"{web.url}api/jobs/{job.id}/events?after={after}", timeout=20) as answer:
            news = json.load(answer)
        events += news["events"]
        after, more = news["next"], news["more"]
    return events


def go_on(web: Server, job: JobFolder) -> JobFolder:
    """As a click on the page; before the first checkpoint there is nothing to go on from."""
    request = urllib.request.Request(
        f"{web.url}api/jobs/{job.id}/resume", data=b"{}", headers={"content-type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
        return job
    except urllib.error.HTTPError as error:
        assert error.code == 409 and "has no usable checkpoint" in error.read().decode()
        return submit(web.settings, "train", "killed", job.request.config)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_fifty_moments(
    whole: JobFolder, serve: Callable[[Path], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "STUDIO_ROOTS", str(tmp_path.parent)
    )  # the rows and the model of the run are in folders of tests
    web = serve(whole.path.parent.parent)
    seconds = [event["elapsed"] for event in reached(whole) if event["kind"] == "metric"][-1]
    rng, ended = random.Random(7), 0
    left = [TARGETS[number % len(TARGETS)] for number in range(MOMENTS)]
    rng.shuffle(left)
    job = submit(web.settings, "train", "killed", whole.request.config)
    while left:
        targets: tuple[str, ...] = left[-1]
        if until_running(job, trains=rng.random() < 0.8):
            time.sleep(rng.uniform(0, 0.6 * seconds))
        if not job.state().final:
            left.pop()
            for target in targets:
                kill(target, job, web)
        if "web" in targets and web.process is None:
            web.start()
        if "worker" in targets or job.state().final:
            assert wait(job, seconds=60).final  # the page has missed the supervisor and started another one
        if job.state().status == "completed":
            equal(job, whole)
            assert told(web, job) == reached(job)
            ended += 1
            job = submit(web.settings, "train", "killed", whole.request.config)
        elif job.state().final:
            job = go_on(web, job)
    while (state := wait(job, seconds=SECONDS)).status != "completed":
        assert state.final, state
        job = go_on(web, job)
    equal(job, whole)
    assert told(web, job) == reached(job)
    print(f"\n{MOMENTS} moments, {ended + 1} runs")
