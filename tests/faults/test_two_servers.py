"""Two web processes on one home: one supervisor, the same answers, and the death of one changes nothing."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from studio.jobs import request_stop
from studio.jobs.actions.queue import KEEP_SECONDS
from tests.faults.processes import supervisors

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server


def get(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=20) as answer:
        return json.load(answer)


def until(true: Callable[[], bool], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.long
def test_one_supervises_and_both_show(
    server: Server, serve: Callable[[Path], Server], fake_run: Callable[..., FakeRun]
) -> None:
    run = fake_run("shared")
    run.train(5)
    other = serve(server.home)
    assert (server.process is not None and other.process is not None) and server.process.pid != other.process.pid
    until(lambda: len(supervisors(server.home)) == 1)

    def alike(step: int) -> None:
        for path in ("api/jobs", f"api/jobs/{run.job.id}", f"api/jobs/{run.job.id}/log"):
            assert get(server, path) == get(other, path)
        ours, theirs = (get(one, f"api/jobs/{run.job.id}/events") for one in (server, other))
        assert ours | {"now": 0} == theirs | {"now": 0}
        assert ours["summary"]["step"] == step and ours["state"]["status"] == "running"

    alike(5)
    run.train(2)
    run.log("a line")
    alike(7)
    (first,) = supervisors(server.home)
    other.end(signal.SIGKILL)
    time.sleep(1)
    assert run.process.poll() is None and run.job.state().status == "running"
    assert supervisors(server.home) == [first]
    other.start()
    run.train(1)
    alike(8)
    # Without a supervisor one of the two starts another one, and only one.
    first.kill()
    until(lambda: len(supervisors(server.home)) == 1 and supervisors(server.home) != [first], 4 * KEEP_SECONDS)
    time.sleep(KEEP_SECONDS)
    assert len(supervisors(server.home)) == 1
    alike(8)
    # It supervises: the process does not know of stops, and is ended by it.
    request_stop(run.job, now=True)
    until(lambda: run.job.state().final)
    assert run.job.state().status == "stopped" and run.process.wait(10) == -signal.SIGTERM
    until(lambda: get(server, "api/jobs") == get(other, "api/jobs"))
    other.end()
