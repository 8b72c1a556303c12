"""One supervisor, real processes: start, queue, stop in phases, death, re-attachment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from studio.jobs import JobFolder, Summaries, list_jobs, read_events, request_stop
from studio.jobs.run import stopping
from studio.jobs.run import supervisor as module
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings

WORKER = """
import os, signal, sys, time
from studio.jobs.run.worker import run_worker
from studio.errors import InputError, StoppedError, StudioError

def work(context):
    mode = context.config["mode"]
    with context.phase("working", 3, "steps") as phase:
        for step in range(3):
            phase.advance()
            context.metric(step, {"loss": 1.0 / (step + 1), "eval_loss": 2.0}, total_steps=3)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "child":
        os.system("sleep 600 &")
    while mode in ("wait", "stubborn", "deaf", "child"):
        if mode == "wait":
            context.check_stop()
        time.sleep(0.05)
    if mode == "late" and not os.path.exists("again"):
        open("again", "w").close()
        context.finish("completed")
        time.sleep(2)
        os._exit(0)
    if mode == "input":
        raise InputError("row 3 has no answer", where="data.jsonl", fix="Write one")
    if mode == "bug":
        raise ValueError("boom <script>")
    if mode == "memory":
        raise RuntimeError("DefaultCPUAllocator: not enough memory")
    if mode == "vanish":
        os._exit(7)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

raise SystemExit(run_worker("train", work))
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[[JobFolder], list[str]]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return lambda job: [sys.executable, str(script), str(job.path)]


def make(settings: Settings, mode: str, name: str = "test") -> JobFolder:
    return create_job(settings.jobs, "train", name, {"mode": mode})


def run_until(supervisor: Supervisor, condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        supervisor.step()
        time.sleep(0.05)


def finish(supervisor: Supervisor, job: JobFolder) -> str:
    run_until(supervisor, lambda: job.state().final)
    return job.state().status


@pytest.mark.parametrize(
    ("mode", "status", "code", "reason"),
    [
        ("done", "completed", 0, ""),
        ("input", "failed", 2, "data.jsonl: row 3 has no answer"),
        pytest.param("bug", "failed", 1, "an unexpected error (ValueError: boom <script>)", marks=pytest.mark.long),
        ("memory", "failed", 1, "the computer's memory was full"),
        pytest.param("vanish", "failed", 7, "the process ended with exit status 7", marks=pytest.mark.long),
        ("killed", "failed", -9, "SIGKILL"),
    ],
)
def test_every_end_has_a_state_and_a_reason(settings, command, mode, status, code, reason) -> None:
    job = make(settings, mode)
    supervisor = Supervisor(settings, command)
    assert finish(supervisor, job) == status
    state = job.state()
    assert state.exit_code == code
    assert reason in state.reason
    assert status == "completed" or state.fix
    events, _ = read_events(job.events_path)
    assert events[-1]["kind"] == "done"
    assert events[-1]["status"] == status


def test_one_at_a_time_in_the_order_of_asking(settings, command) -> None:
    first, second, third = (make(settings, mode, f"job-{mode}-{n}") for n, mode in enumerate(["wait", "done", "done"]))
    supervisor = Supervisor(settings, command)
    run_until(supervisor, lambda: first.state().status == "running")
    for _ in range(5):
        supervisor.step()
    assert second.state().status == third.state().status == "queued"
    request_stop(first)
    assert finish(supervisor, third) == "completed"
    assert first.state().status == "stopped"
    assert second.state().finished <= third.state().started


def test_a_stop_is_obeyed_and_visible(settings, command) -> None:
    job = make(settings, "wait")
    supervisor = Supervisor(settings, command)
    run_until(supervisor, lambda: job.state().status == "running")
    request_stop(job)
    assert finish(supervisor, job) == "stopped"
    assert job.state().exit_code == 130
    assert "stopping" in [event.get("phase") for event in read_events(job.events_path)[0]]


def test_a_deaf_worker_gets_sigterm_and_a_stubborn_one_sigkill(settings, command, monkeypatch) -> None:
    monkeypatch.setattr(stopping, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(stopping, "TERM_SECONDS", 0.3)
    supervisor = Supervisor(settings, command)
    for mode in ("deaf", "stubborn"):
        job = make(settings, mode, mode)
        run_until(supervisor, lambda job=job: job.state().status == "running" and Summaries().of(job).step == 2)
        time.sleep(0.3)
        request_stop(job)
        assert finish(supervisor, job) == "stopped"
        assert job.state().exit_code == (130 if mode == "deaf" else -9)


def test_killing_takes_the_whole_group(settings, command, monkeypatch) -> None:
    monkeypatch.setattr(stopping, "TERM_SECONDS", 0.2)
    job = make(settings, "child")
    supervisor = Supervisor(settings, command)
    run_until(supervisor, lambda: Summaries().of(job).step == 2)
    time.sleep(0.3)
    pid = job.state().pid
    assert pid is not None
    assert os.getpgid(pid) == pid
    os.killpg(pid, signal.SIGKILL)
    assert finish(supervisor, job) == "failed"


def test_a_queued_job_can_be_stopped_before_it_begins(settings, command) -> None:
    blocker, job = make(settings, "wait", "a"), make(settings, "done", "b")
    supervisor = Supervisor(settings, command)
    run_until(supervisor, lambda: blocker.state().status == "running")
    request_stop(job)
    assert finish(supervisor, job) == "stopped"
    request_stop(blocker)
    finish(supervisor, blocker)


def test_a_new_supervisor_finds_the_running_job_again(settings, command) -> None:
    job = make(settings, "wait")
    first = Supervisor(settings, command)
    run_until(first, lambda: job.state().status == "running")
    second = Supervisor(settings, command)  # as after kill -9 of the first
    second.step()
    assert job.state().status == "running"
    pid = job.state().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while first._children[job.id].poll() is None:
        time.sleep(0.05)
    assert finish(second, job) == "lost"
    assert "disappeared" in job.state().reason


def test_another_process_with_the_same_id_is_not_the_job(settings, command) -> None:
    job = make(settings, "done")
    module.write_state(
        job.state_path, job.state().with_(status="running", pid=os.getpid(), process_start=1.0, started=time.time())
    )
    assert finish(Supervisor(settings, command), job) == "lost"


def test_a_job_folder_copied_elsewhere_is_listed_and_read(settings, command, tmp_path) -> None:
    job = make(settings, "done")
    finish(Supervisor(settings, command), job)
    elsewhere = tmp_path / "other" / "jobs" / job.id
    elsewhere.parent.mkdir(parents=True)
    job.path.rename(elsewhere)
    (found,) = list_jobs(elsewhere.parent)
    summary = Summaries().of(found)
    assert found.state().status == "completed"
    assert (summary.step, summary.total_steps, summary.best) == (2, 3, (2.0, 1))


def test_the_reason_of_an_earlier_attempt_is_not_told_again(settings, command) -> None:
    job = make(settings, "killed")
    job.log_path.write_text("OSError: [Errno 28] No space left on device\n12:00:00  failed: the disk was full\n")
    size = job.log_path.stat().st_size
    assert finish(Supervisor(settings, command), job) == "failed"
    assert job.state().log_start == size and "SIGKILL" in job.state().reason


def test_a_folder_that_cannot_be_written_holds_up_no_other_job(settings, command, monkeypatch, capsys) -> None:
    """Its job died long ago, and nobody can write that down."""
    theirs = make(settings, "done", "theirs")
    write_state(theirs.state_path, JobState(status="running", pid=2**22 + 1, process_start=1.0))
    writing = module.write_state

    def refusing(path: Path, state: JobState) -> None:
        if path == theirs.state_path:
            raise PermissionError(13, "Permission denied", str(path))
        writing(path, state)

    monkeypatch.setattr(module, "write_state", refusing)
    job, supervisor = make(settings, "done"), Supervisor(settings, command)
    assert finish(supervisor, job) == "completed"
    assert capsys.readouterr().err.count("Permission denied") == 1, "said once, not four times a second"


def test_a_process_that_cannot_be_started_is_told_with_its_reason(settings, monkeypatch) -> None:
    def refusing(*args: object, **more: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module.Starter, "start", refusing)
    job = make(settings, "done")
    Supervisor(settings).step()
    assert (job.state().status, job.state().reason) == ("failed", "too many files were open")


def test_a_device_is_free_once_the_process_is_gone(settings, command) -> None:
    """Its memory is not before that. A run that is resumed at once waits for its own process as well."""
    first, second = make(settings, "late", "first"), make(settings, "done", "second")
    supervisor = Supervisor(settings, command)
    run_until(supervisor, lambda: first.state().final)
    supervisor.step()
    assert first.state().status == "completed" and second.state().status == "queued"
    pid = first.state().pid
    write_state(first.state_path, JobState(status="queued", attempt=2))
    supervisor.step()
    assert first.state().status == "queued" and psutil.pid_exists(pid)
    run_until(supervisor, lambda: first.state().final and second.state().final, 90)
    assert {first.state().status, second.state().status} == {"completed"} and first.state().pid != pid
