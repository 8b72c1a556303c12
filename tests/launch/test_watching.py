"""`studio watch`: any job's folder, wherever it lies; only read, and told in the terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from studio.cli.main import main
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from tests.conftest import call_studio
from tests.support.processes import interruptible
from tests.support.programs.sshd import Sshd, needs_sshd


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """A run that is over, in no home."""
    made = create_job(tmp_path / "some where", "train", "orders", {})
    writer = EventWriter(made.events_path)
    writer.write("phase", phase="training", state="begin", done=0, total=2, unit="steps")
    for step in (1, 2):
        writer.write("metric", step=step, total_steps=2, values={"loss": 1.0 / step})
    writer.write("notice", level="warning", text="the loss is odd", fix="Look at it")
    writer.close()
    write_state(made.state_path, JobState(status="completed"))
    return made


def test_a_folder_is_watched_by_path_and_by_url(job: JobFolder, home: Path) -> None:
    before = sorted((one.name, one.stat().st_mtime_ns) for one in job.path.iterdir())
    for place in (str(job.path), f"file://{job.path}"):
        done = call_studio("watch", place, "--json", home=home)
        assert done.code == 0, done.stderr
        assert done.json == {"status": "completed", "name": "orders", "step": 2, "loss": 0.5}
        assert "warning: the loss is odd Look at it" in done.stderr and "step 1 of 2" in done.stderr
    assert sorted((one.name, one.stat().st_mtime_ns) for one in job.path.iterdir()) == before


@pytest.mark.parametrize(
    "place, said",
    [
        ("{folder}", "is not the folder of a job"),
        ("file://{folder}/none", "is not the folder of a job"),
        ("nosuch://bucket/run", "cannot be read"),
        ("ssh://box", "names no folder"),
        ("no-run", "there is no job"),
    ],
)
def test_what_cannot_be_watched_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, said: str
) -> None:
    assert main(["watch", place.format(folder=tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_job_that_failed_ends_the_watching_with_its_reason(job: JobFolder, home: Path) -> None:
    write_state(job.state_path, JobState(status="failed", reason="the disk is full", exit_code=1))
    done = call_studio("watch", f"file://{job.path}", home=home)
    assert done.code == 1 and "the disk is full" in done.stderr


@needs_sshd
def test_a_folder_is_watched_by_ssh_while_it_grows(there: Sshd, job: JobFolder, home: Path) -> None:
    target = JobFolder(shutil.copytree(job.path, there.home / "a run"))
    write_state(target.state_path, JobState(status="running"))

    def grow() -> None:
        time.sleep(1.5)
        writer = EventWriter(target.events_path)
        writer.write("metric", step=3, total_steps=3, values={"loss": 0.25})
        writer.close()
        write_state(target.state_path, JobState(status="completed"))

    thread = threading.Thread(target=grow)
    thread.start()
    done = call_studio("watch", f"{there.url}/~/a run", "--json", home=home)
    thread.join()
    assert done.code == 0, done.stderr
    assert done.json["step"] == 3 and done.json["loss"] == 0.25


def test_ctrl_c_ends_the_showing_and_not_the_job(job: JobFolder, home: Path) -> None:
    write_state(job.state_path, JobState(status="running"))
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "watch", str(job.path)], stderr=subprocess.PIPE, text=True,
        preexec_fn=interruptible,
    )  # fmt: skip
    assert process.stderr is not None
    assert "train orders" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(2)
    assert process.wait(timeout=30) == 130
    assert not job.stop_path.exists() and json.loads(job.state_path.read_text())["status"] == "running"
