"""The computer's clock is moved while a job lives: nothing is decided by it, and what is shown stays sane."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio.jobs import JobFolder, JobState, Summaries
from studio.jobs.actions import client
from studio.jobs.run import stopping
from studio.jobs.run import supervisor as module
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import own_identity, write_state
from studio.settings import Settings
from studio.ui.routes.runlist import RunBook

HOUR = 3600.0


def move_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock of the supervisor; what counts seconds since the start goes on."""
    clock = SimpleNamespace(**{name: getattr(time, name) for name in ("monotonic", "sleep", "strftime")})
    clock.time = lambda: time.time() + seconds
    for one in (module, stopping):
        monkeypatch.setattr(one, "time", clock)


def running(settings: Settings, name: str = "runs") -> JobFolder:
    job = create_job(settings.jobs, "train", name, {})
    pid, start = own_identity()
    write_state(job.state_path, JobState(status="running", pid=pid, process_start=start, started=time.time()))
    return job


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_moved_clock_buries_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    job = running(settings)
    starting = create_job(settings.jobs, "train", "starting", {})  # by a supervisor that was killed just then
    write_state(starting.state_path, JobState(status="starting", started=time.time()))
    supervisor = Supervisor(settings)
    supervisor.step()
    move_clock(monkeypatch, hours * HOUR)
    supervisor.step()
    assert (job.state().status, starting.state().status) == ("running", "starting")
    monkeypatch.setattr(module, "START_SECONDS", -1.0)
    supervisor.step()  # its time is over, whatever the clock says
    assert (job.state().status, starting.state().status) == ("running", "lost")
    ended = starting.state().finished
    assert ended is not None and abs(ended - time.time() - hours * HOUR) < 60


def test_a_stop_takes_its_time_by_seconds(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import time\nfrom studio.jobs.run.worker import run_worker\n"
        "def work(context):\n    while True:\n        time.sleep(0.05)\n"
        "raise SystemExit(run_worker('train', work))\n"
    )
    monkeypatch.setattr(stopping, "ASK_SECONDS", 1.0)
    job = create_job(settings.jobs, "train", "deaf", {})
    supervisor = Supervisor(settings, lambda job: [sys.executable, str(script), str(job.path)])
    supervisor.step()
    while job.state().status != "running":
        time.sleep(0.02)
    client.request_stop(job)
    supervisor.step()
    move_clock(monkeypatch, 48 * HOUR)
    supervisor.step()
    assert job.state().status == "running"  # it still has its second
    began = time.monotonic()
    while not job.state().final:
        supervisor.step()
        time.sleep(0.02)
        assert time.monotonic() - began < 20
    assert job.state().status == "stopped" and job.state().exit_code == 130


def test_every_job_has_its_turn_when_the_clock_goes_back(settings: Settings) -> None:
    now = time.time()
    jobs = [create_job(settings.jobs, "train", name, {}) for name in ("first", "second", "third")]
    for job, created in zip(jobs, (now, now - 48 * HOUR, now + 48 * HOUR), strict=True):
        write_state(job.state_path, JobState(status="queued", created=created))
    rows = RunBook(settings, Summaries()).rows()
    assert sorted(row["place"] for row in rows) == [1, 2, 3]
    started = []
    supervisor = Supervisor(settings, lambda job: (started.append(job.id), [sys.executable, "-c", ""])[1])
    end = time.monotonic() + 30
    while supervisor.step():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert sorted(started) == sorted(job.id for job in jobs)
    assert all(job.state().status == "failed" for job in jobs)  # they ended without a word, each of them once


def test_a_summary_does_not_mind_the_time_of_events(settings: Settings) -> None:
    job = running(settings)
    writer = EventWriter(job.events_path)
    lines = []
    for step, jump in enumerate((0.0, 48 * HOUR, -48 * HOUR, -1e9, 0.0), start=1):
        event = writer.write(
            "metric", step=step, total_steps=9, tokens=600 * step, elapsed=float(step), eta=9.0 - step,
            passed=float(step), values={"loss": 1.0, "tokens_per_second": 600.0},
        )  # fmt: skip
        lines.append({**event, "time": event["time"] + jump})
    summary = Summaries().of(job)
    book = RunBook(settings, Summaries())
    (row,) = book.rows()
    job.events_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    moved = Summaries().of(job)
    assert moved == summary and (moved.progress.left, moved.elapsed, moved.step) == (4.0, 5.0, 5)
    (again,) = RunBook(settings, Summaries()).rows()
    assert again == row
