"""kill -9 of a training at any moment: it goes on, and ends where the undisturbed run does, with no event too many.

Two moments of the worker, one of it and its supervisor; fifty of all processes are in tests/faults/test_kills.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from studio.errors import InputError
from studio.jobs import JobFolder, read_events, resume, submit, wait
from studio.jobs.store.checkpoints import last_whole
from studio.settings import Settings
from tests.conftest import run_studio
from tests.faults.processes import supervisors
from tests.parity.made import demo_rows, write_rows

STEPS, SAVE = 12, 3
TOLERANCE = 1e-6
SECONDS = 240


def config(tiny: Path, folder: Path) -> dict[str, Any]:
    rows = write_rows(folder / "rows.jsonl", demo_rows("train.jsonl", 24))
    return {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.2, "max_length": 512},
        "method": {"name": "sft"},
        "tuning": {"name": "lora", "rank": 8, "dropout": 0.1},
        "training": {
            "max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "save_steps": SAVE, "eval_steps": 2,
        },
    }  # fmt: skip


def reached(job: JobFolder) -> list[dict[str, Any]]:
    return read_events(job.events_path, 0, 10**8)[0]


def curve(job: JobFolder) -> dict[str, list[tuple[int, float]]]:
    """The curves as a reader draws them: what came after the step that a run goes on from is forgotten."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in reached(job):
        if event["kind"] == "resume":
            curves = {name: [one for one in line if one[0] <= event["step"]] for name, line in curves.items()}
        for name in ("loss", "eval_loss", "learning_rate"):
            if event["kind"] == "metric" and name in event["values"]:
                curves.setdefault(name, []).append((event["step"], event["values"][name]))
    return curves


def kill_at(job: JobFolder, moment: float) -> None:
    """Kill the worker `moment` seconds after it began to train, or when it is over."""
    end = time.monotonic() + SECONDS
    attempt = job.state().attempt
    while time.monotonic() < end:
        state = job.state()
        if state.final:
            return
        begun = [event for event in reached(job) if event["kind"] == "phase" and event["phase"] == "training"]
        trains = len([event for event in begun if event["state"] == "begin"]) == attempt
        if trains and state.pid is not None and state.status == "running":
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGKILL)
            assert wait(job, seconds=60).final
            return
        time.sleep(0.02)
    pytest.fail("the training did not begin")


def finished(settings: Settings, job: JobFolder) -> None:
    """Let it go on until it is done; before its first checkpoint it cannot, and says so."""
    while (state := wait(job, seconds=SECONDS)).status != "completed":
        assert state.final, state
        resume(settings, job)


def equal(job: JobFolder, whole: JobFolder) -> None:
    ours, theirs = (load_file(one.model / "adapter_model.safetensors") for one in (job, whole))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert float((ours[name] - weight).abs().max()) <= TOLERANCE, name
    assert curve(job).keys() == curve(whole).keys()
    for name, line in curve(whole).items():
        assert [step for step, _ in curve(job)[name]] == [step for step, _ in line], name
        assert [value for _, value in curve(job)[name]] == pytest.approx([value for _, value in line], abs=1e-5), name
    numbers = [event["seq"] for event in reached(job) if event["seq"] > 0]
    assert numbers == list(range(1, len(numbers) + 1))
    last = [event for event in reached(job) if event["kind"] == "metric"][-1]
    expected = [event for event in reached(whole) if event["kind"] == "metric"][-1]
    assert (last["tokens"], last["supervised_tokens"]) == (expected["tokens"], expected["supervised_tokens"])


@pytest.fixture(scope="module")
def whole(tiny: Path, session_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """The run that nobody disturbs."""
    job = submit(session_settings, "train", "whole", config(tiny, tmp_path_factory.mktemp("whole")))
    assert wait(job, seconds=SECONDS).status == "completed", job.log_path.read_text()
    return job


def disturbed(settings: Settings, whole: JobFolder, moments: list[float]) -> int:
    """Run it again, killed at these moments; returns how many of them hit."""
    job = submit(settings, "train", "killed", whole.request.config)
    hits = 0
    for moment in moments:
        kill_at(job, moment)
        if job.state().status == "completed":
            break
        hits += 1
        try:
            resume(settings, job)
        except InputError as error:
            assert "no usable checkpoint" in error.what
            job = submit(settings, "train", "killed", whole.request.config)
    finished(settings, job)
    equal(job, whole)
    return hits


@pytest.mark.long
def test_a_killed_run_ends_where_the_whole_one_does(session_settings: Settings, whole: JobFolder) -> None:
    seconds = [event["elapsed"] for event in reached(whole) if event["kind"] == "metric"][-1]
    assert disturbed(session_settings, whole, [0.35 * seconds, 0.1 * seconds]) >= 1


@pytest.mark.long
def test_the_command_line_lets_it_go_on(session_settings: Settings, whole: JobFolder) -> None:
    job = submit(session_settings, "train", "from-the-terminal", whole.request.config)
    end = time.monotonic() + SECONDS
    while last_whole(job.checkpoints) is None:
        assert time.monotonic() < end and not job.state().final
        time.sleep(0.01)
    state = job.state()
    assert state.pid is not None
    for process in supervisors(session_settings.home):
        process.kill()  # nobody is left to write how it ended
    os.kill(state.pid, signal.SIGKILL)
    assert job.state().status == "running"
    done = run_studio("jobs", "resume", "from-the-terminal", "--json", home=session_settings.home)
    assert done.code == 0, done.stderr
    assert done.json["state"]["status"] == "completed" and done.json["state"]["attempt"] == 2
    assert "resuming from step" in done.stderr
    equal(job, whole)
    again = run_studio("jobs", "resume", "from-the-terminal", home=session_settings.home)
    assert again.code == 2 and "is done" in again.stderr
