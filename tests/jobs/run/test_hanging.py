"""A worker that hangs in compiled code, deaf to SIGTERM, is gone in the promised time with all that it began."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio.jobs import JobFolder, list_jobs, read_events, request_stop
from studio.jobs.run import stopping
from studio.jobs.run.leftovers import MARK, kill_all
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import process_start, write_state
from studio.settings import Settings
from tests.support.processes import ended

ASK, TERM = 0.4, 0.4
# Killing and burying, on a busy machine.
SLACK = 5.0

WORKER = """
import ctypes, os, signal, subprocess, sys
from studio.jobs.run.worker import run_worker

SLEEP = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]

def work(context):
    children = [
        subprocess.Popen(SLEEP).pid,
        subprocess.Popen(SLEEP, process_group=0).pid,
        subprocess.Popen(SLEEP, start_new_session=True).pid,
    ]
    # One whose parent is gone: it belongs to nobody.
    code = "import subprocess, sys; n = subprocess.DEVNULL; "
    code += "print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=n, stderr=n).pid)"
    children.append(int(subprocess.run([sys.executable, "-c", code, *SLEEP], capture_output=True, text=True).stdout))
    context.result("children", {"pids": children})
    if context.config["mode"] == "crash":
        os._exit(5)
    if context.config["mode"] == "late":
        context.finish("completed")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter's lock: no thread of ours runs any more

raise SystemExit(run_worker("train", work))
"""


@pytest.fixture
def begun(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], tuple[Supervisor, JobFolder, list[psutil.Process]]]]:
    """Start a worker and wait until it has told its children; none of them outlives the test."""
    monkeypatch.setattr(stopping, "ASK_SECONDS", ASK)
    monkeypatch.setattr(stopping, "TERM_SECONDS", TERM)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def begin(mode: str) -> tuple[Supervisor, JobFolder, list[psutil.Process]]:
        job = create_job(settings.jobs, "train", mode, {"mode": mode})
        supervisor = Supervisor(settings, lambda job: [sys.executable, str(script), str(job.path)])
        supervisor.step()
        end = time.monotonic() + 60
        while not (told := [one for one in read_events(job.events_path)[0] if one["kind"] == "result"]):
            assert time.monotonic() < end, job.log_path.read_text()
            time.sleep(0.02)
        return supervisor, job, [psutil.Process(pid) for pid in told[0]["values"]["pids"]]

    yield begin
    for job in list_jobs(settings.jobs):
        kill_all(job.path, job.state().pid if job.state().alive() else None)


def until(supervisor: Supervisor, gone: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not gone():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        supervisor.step()
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_stop_takes_the_hanging_worker_and_all_its_children(begun: Callable) -> None:
    supervisor, job, children = begun("hang")
    assert len(children) == 4 and not any(map(ended, children))
    pid = job.state().pid
    request_stop(job)
    seconds = until(supervisor, lambda: job.state().final and all(map(ended, children)), ASK + TERM + SLACK)
    assert seconds >= ASK + TERM  # it was asked before
    state = job.state()
    assert (state.status, state.exit_code) == ("stopped", -9) and "it was killed" in state.reason
    assert not psutil.pid_exists(pid)


def test_a_worker_that_dies_leaves_no_child(begun: Callable) -> None:
    supervisor, job, children = begun("crash")
    until(supervisor, lambda: job.state().final and all(map(ended, children)), SLACK)
    assert (job.state().status, job.state().exit_code) == ("failed", 5)


def test_a_worker_that_is_done_and_does_not_leave_is_ended(begun: Callable) -> None:
    supervisor, job, children = begun("late")
    pid = job.state().pid
    assert pid is not None
    worker = psutil.Process(pid)
    until(supervisor, lambda: ended(worker) and all(map(ended, children)), TERM + SLACK)
    assert job.state().status == "completed"


def test_a_foreign_process_is_never_signalled(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is that of a worker that is gone: ids are used again."""
    for name in ("ASK_SECONDS", "TERM_SECONDS"):
        monkeypatch.setattr(stopping, name, 0.0)
    job = create_job(settings.jobs, "train", "gone", {})
    note = settings.home / "signalled"
    code = (
        "import pathlib, signal, sys, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(number, lambda *_: pathlib.Path(sys.argv[1]).touch())\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    environment = {**os.environ, MARK: str(settings.jobs / "another-job")}
    foreign = subprocess.Popen(
        [sys.executable, "-c", code, str(note)], stdout=subprocess.PIPE, start_new_session=True, env=environment
    )
    try:
        assert foreign.stdout is not None and foreign.stdout.readline() == b"ready\n"
        start = process_start(foreign.pid)
        assert start is not None
        before = job.state()
        for stop in (False, True):
            write_state(
                job.state_path,
                before.with_(status="running", pid=foreign.pid, process_start=start - 500, started=time.time()),
            )
            if stop:
                request_stop(job, now=True)
            supervisor = Supervisor(settings)
            for _ in range(5):
                supervisor.step()
            assert job.state().status == ("stopped" if stop else "lost")
        assert kill_all(job.path) == 0
        assert foreign.poll() is None and not note.exists()
    finally:
        foreign.kill()
        foreign.wait()
        foreign.stdout.close()
