"""A rank that dies or hangs is named with its log's last line within 30 s, no process is left, and the run resumes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from studio.jobs import JobFolder, request_stop, resume, submit, wait
from studio.jobs.run.leftovers import MARK
from studio.jobs.store.checkpoints import last_whole
from studio.settings import Settings
from tests.ranks.made import SECONDS, TOLERANCE, apart, config, curve, ran

# From the fault to the sentence.
NAMED_SECONDS = 30.0


def ranks_of(job: JobFolder) -> dict[int, psutil.Process]:
    """The processes of a job by rank; the launcher is -1."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get(MARK) == str(job.path) and "RANK" in environment:
            found[int(environment["RANK"])] = process
    if (pid := job.state().pid) is not None and psutil.pid_exists(pid):
        found[-1] = psutil.Process(pid)
    return found


def until(true: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tiny: Path, session_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """The run that nobody disturbs, on one process."""
    values = config(tiny, tmp_path_factory.mktemp("faults"), epochs=20, save_steps=5)
    return ran(session_settings, "undisturbed", values)


@pytest.fixture
def begun(whole: JobFolder, session_settings: Settings) -> JobFolder:
    """The same on two ranks, with its first checkpoint written."""
    values = {**whole.request.config}
    values["training"] = {**values["training"], "devices": "2"}
    job = submit(session_settings, "train", "disturbed", values)
    until(lambda: last_whole(job.checkpoints) is not None or job.state().final)
    assert not job.state().final, job.log_path.read_text()
    return job


def same(job: JobFolder, whole: JobFolder) -> None:
    assert curve(job, "loss") == pytest.approx(curve(whole, "loss"), rel=TOLERANCE)
    assert apart(job, whole) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize(
    ("which", "number", "said"),
    [
        (1, signal.SIGKILL, r"rank 1 was killed .*SIGKILL.*; the last line of rank-1.log is '.+'"),
        (0, signal.SIGKILL, r"rank 0 was killed .*SIGKILL.*; the last line of log.txt is '.+'"),
        (-1, signal.SIGKILL, r"killed the process|process was killed"),
        (
            1,
            signal.SIGSTOP,
            r"rank 1 has done nothing for \d+ s and does not respond.*; the last line of rank-1.log is",
        ),
        (1, signal.SIGSEGV, r"rank 1 ended: a compiled library crashed.*; the last line of rank-1.log is '.+'"),
    ],
    ids=["rank", "first-rank", "launcher", "hanging", "crashed"],
)
def test_who_dies_is_named_and_the_run_resumes(
    begun: JobFolder, whole: JobFolder, session_settings: Settings, which: int, number: signal.Signals, said: str
) -> None:
    processes = ranks_of(begun)
    assert set(processes) == {-1, 0, 1}
    at = time.monotonic()
    os.kill(processes[which].pid, number)
    state = wait(begun, seconds=60)
    assert state.status == "failed" and time.monotonic() - at < NAMED_SECONDS
    assert re.search(said, state.reason), state.reason
    assert state.fix
    until(lambda: not ranks_of(begun), 10)
    # One that is on its way out has lost its command line, by which it is found, a moment before it is gone.
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in processes.values()), 10)
    resume(session_settings, begun)
    assert wait(begun, seconds=SECONDS).status == "completed", begun.log_path.read_text()
    same(begun, whole)


# Read by every Python that finds it: SIGUSR2 makes a step compute for ever.
SPINNING = """\
import signal

def spin(number, frame):
    above = frame
    while above is not None and above.f_code.co_name != "training_step":
        above = above.f_back
    if above is None:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        return
    while True:
        pass

for one in (signal.SIGUSR2, signal.SIGALRM):
    signal.signal(one, spin)
"""


@pytest.mark.long
def test_a_rank_that_computes_for_ever_is_named(
    tiny: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SPINNING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    job = submit(settings, "train", "endless", config(tiny, tmp_path, epochs=50, devices="2", eval_steps=1000))
    until(lambda: len(curve(job, "loss")) > 5 or job.state().final)
    assert not job.state().final, job.log_path.read_text()
    at = time.monotonic()
    os.kill(ranks_of(job)[1].pid, signal.SIGUSR2)
    state = wait(job, seconds=90)
    assert state.status == "failed" and time.monotonic() - at < NAMED_SECONDS + 10, state
    assert re.search(r"rank 1 is stuck computing in spin \(.*sitecustomize.py, line \d+\)", state.reason), state


@pytest.mark.long
def test_a_stop_saves_and_it_goes_on(begun: JobFolder, whole: JobFolder, session_settings: Settings) -> None:
    request_stop(begun)
    state = wait(begun, seconds=60)
    assert state.status == "stopped" and "the weights are saved" in state.reason, state
    assert (begun.model / "adapter_model.safetensors").is_file()
    until(lambda: not ranks_of(begun), 10)
    resume(session_settings, begun)
    assert wait(begun, seconds=SECONDS).status == "completed", begun.log_path.read_text()
    same(begun, whole)


@pytest.mark.long
def test_a_stop_at_once_leaves_nothing_behind(begun: JobFolder, session_settings: Settings) -> None:
    request_stop(begun, now=True)
    state = wait(begun, seconds=30)
    assert state.status == "stopped", state
    until(lambda: not ranks_of(begun), 10)
