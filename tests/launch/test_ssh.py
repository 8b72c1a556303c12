"""A run on a machine that is reached by ssh: started, shown, stopped, resumed, and its result brought back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.jobs import JobFolder, Summaries, find_job, read_events
from studio.jobs.store.checkpoints import whole_steps
from studio.settings import Settings
from tests.conftest import run_studio
from tests.support.programs.sshd import Sshd, needs_sshd

pytestmark = needs_sshd
SHORT = ["--set", "training.max_steps=3", "--set", "training.batch_size=2", "--set", "data.validation=0"]


def rows(folder: Path, count: int = 24) -> Path:
    """A file of rows that only this machine has."""
    path = folder / "my rows.jsonl"
    told = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(count)]
    path.write_text("".join(json.dumps(one) + "\n" for one in told))
    return path


def launched(there: Sshd, python: Path, *more: str, home: Path) -> JobFolder:
    asked = ["launch", "demo/sft", "--to", there.url, "--python", str(python), "--with", "poll=0.3", *more]
    done = run_studio(*asked, "--detach", "--json", home=home)
    assert done.code == 0, done.stderr
    return JobFolder(Path(done.json["path"]))


def until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


@pytest.mark.long
def test_a_run_is_trained_there_and_its_model_comes_back(
    there: Sshd, python_there: Path, home_there: Path, home: Path, settings: Settings, tmp_path: Path
) -> None:
    data = rows(tmp_path)
    asked = [
        "launch", "demo/sft", "--to", there.url, "--python", str(python_there), "--name", "far", "--with", "poll=0.3",
        "--set", f"data.train=[{{path: '{data}'}}]", *SHORT,
    ]  # fmt: skip
    done = run_studio(*asked, "--json", home=home)
    assert done.code == 0, done.stderr
    job = find_job(settings.jobs, done.json["id"])
    assert job.state().status == "completed" and job.request.machine == "127.0.0.1"
    summary = Summaries().of(job)
    assert summary.step == 3 and summary.total_steps == 3
    theirs = home_there / "jobs" / job.id
    assert (job.model / "adapter_model.safetensors").read_bytes() == (
        theirs / "model" / "adapter_model.safetensors"
    ).read_bytes()
    events = read_events(job.events_path)[0]
    assert [one["step"] for one in events if one["kind"] == "metric"] == [1, 2, 3]
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    # What it records names the files of this machine.
    assert str(there.home) not in job.environment_path.read_text()
    assert str(there.home) not in (job.model / "adapter_config.json").read_text()
    # Sent again, nothing is copied.
    again = run_studio(*asked[:-1], "data.validation=0", "--set", "training.seed=3", "--json", home=home)
    assert again.code == 0, again.stderr
    assert "0.0 of" in JobFolder(Path(again.json["path"])).log_path.read_text()


@pytest.mark.long
def test_a_broken_connection_a_killed_process_a_stop_and_a_resume(
    there: Sshd, python_there: Path, home_there: Path, home: Path, settings: Settings
) -> None:
    sets = ["--set", "training.max_steps=60", "--set", "training.batch_size=2", "--set", "data.validation=0"]
    job = launched(there, python_there, "--name", "far", *sets, "--set", "training.save_steps=5", home=home)
    theirs = JobFolder(home_there / "jobs" / job.id)
    summaries = Summaries()
    until(lambda: summaries.of(job).step >= 2)

    # The connection breaks: the run goes on there, and the job here says since when it is not heard of.
    there.stop()
    until(lambda: any("no connection to 127.0.0.1 since" in one["text"] for one in summaries.of(job).notices))
    known = summaries.of(job).step
    until(lambda: Summaries().of(theirs).step > known + 1)
    assert job.state().status == "running" and theirs.state().status == "running"
    there.start()
    until(lambda: any("127.0.0.1 is responding again" in one["text"] for one in summaries.of(job).notices))
    until(lambda: summaries.of(job).step > known)

    # The process here is killed: another one follows the same run, and no event comes twice.
    pid = job.state().pid
    assert pid is not None
    psutil.Process(pid).kill()
    until(lambda: job.state().pid not in (None, pid) and job.state().status == "running")

    # A stop finishes the step there and brings what was learned.
    stopped = run_studio("jobs", "stop", job.id, "--json", home=home)
    assert stopped.code == 0, stopped.stderr
    assert job.state().status == "stopped" and theirs.state().status == "stopped"
    at = summaries.of(job).step
    assert 0 < at < 60 and whole_steps(job.checkpoints) == whole_steps(theirs.checkpoints)
    assert max(whole_steps(job.checkpoints)) == at
    assert (job.model / "adapter_config.json").exists()

    # It resumes there, to the end.
    changed = run_studio("jobs", "resume", job.id, "--json", home=home)
    assert changed.code == 0, changed.stderr
    assert job.state().status == "completed" and theirs.state().attempt == 2
    steps = [one["step"] for one in all_events(job) if one["kind"] == "metric"]
    assert steps == list(range(1, 61))
    numbers = [one["there"] for one in all_events(job) if "there" in one]
    assert len(numbers) == len(set(numbers)) and numbers == sorted(numbers)


@pytest.mark.long
def test_without_rsync_files_travel_as_archives(
    there: Sshd, python_there: Path, home_there: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if program.name != "rsync" and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tools))
    assert shutil.which("rsync") is None and shutil.which("ssh") is not None
    data = rows(tmp_path)
    sets = ["--set", f"data.train=[{{path: '{data}'}}]", *SHORT, "--with", "checkpoints=last"]
    job = launched(there, python_there, "--name", "far", *sets, home=home)
    until(lambda: job.state().final)
    assert job.state().status == "completed", job.state().reason
    theirs = JobFolder(home_there / "jobs" / job.id)
    name = "adapter_model.safetensors"
    assert (job.model / name).read_bytes() == (theirs.model / name).read_bytes()
    assert whole_steps(job.checkpoints) == [3]


@pytest.mark.long
def test_what_fails_there_fails_here_with_the_same_reason(
    there: Sshd, python_there: Path, home_there: Path, home: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"nothing": "of use"}\n')
    job = launched(there, python_there, "--name", "bad", "--set", f"data.train=[{{path: '{data}'}}]", home=home)
    until(lambda: job.state().final)
    state = job.state()
    assert state.status == "failed" and state.exit_code == 2
    assert "rows.jsonl" in state.reason and "127.0.0.1" in state.reason
    assert not (home_there / "jobs" / job.id).exists()


def all_events(job: JobFolder) -> list[dict[str, Any]]:
    """Every event of a job; what a later attempt did once more counts only then."""
    kept: list[dict[str, Any]] = []
    offset = 0
    while True:
        page, following = read_events(job.events_path, offset)
        for event in page:
            if event["kind"] == "resume":
                kept = [one for one in kept if one["kind"] != "metric" or one["step"] <= event["step"]]
            kept.append(event)
        if following == offset:
            return kept
        offset = following


@pytest.mark.long
def test_the_studio_installs_itself_there_once(there: Sshd, home_there: Path, home: Path) -> None:
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True).stdout.strip()
    there.stop()
    told = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}  # an index or folder of wheels
    there.set_environment(PIP_CACHE_DIR=cache, **told)
    there.start()
    asked = ["launch", "demo/sft", "--to", there.url, "--with", "poll=0.3", *SHORT, "--json"]
    done = run_studio(*asked, home=home)
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    assert (job.model / "adapter_model.safetensors").exists()
    python = Path(json.loads((job.path / "launch.json").read_text())["python"])
    assert python.is_relative_to(home_there.parent / "venvs") and (python.parent.parent / ".installed").exists()
    assert any(one.get("phase") == "installing the studio there" for one in all_events(job))
    again = run_studio(*asked, "--set", "training.seed=3", home=home)
    assert again.code == 0, again.stderr
    assert not any("installing" in one.get("phase", "") for one in all_events(JobFolder(Path(again.json["path"]))))
