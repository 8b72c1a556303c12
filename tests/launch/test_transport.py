"""Files and events between two machines, without a training: what travels, what travels once, and what breaks."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.config.launch import SshConfig
from studio.errors import StoppedError, StudioError
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import seal, whole_steps
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, own_identity, write_state
from studio.launch.record import update_record
from studio.launch.ssh.address import parse_address
from studio.launch.ssh.follow import ByMachine
from studio.launch.ssh.machine import Machine
from studio.launch.ssh.mirror import Mirror
from studio.launch.ssh.parcel import make_parcel
from studio.launch.ssh.sending import send_parcels
from studio.launch.ssh.setup import Studio, probe
from studio.settings import Settings
from tests.support.programs.sshd import Sshd, needs_sshd

pytestmark = needs_sshd
WAYS = ["rsync", "tar"]


@pytest.fixture
def far(there: Sshd, python_there: Path) -> Iterator[Studio]:
    """The studio there."""
    with Machine(parse_address(there.url)) as machine:
        yield Studio(machine, probe(machine), str(python_there))


def by(way: str, far: Studio) -> Studio:
    """The same, with or without rsync."""
    if way == "rsync" and shutil.which("rsync") is None:
        pytest.skip("rsync is missing: apt-get install rsync")
    return Studio(far.machine, replace(far.found, rsync=way == "rsync"), far.python)


@pytest.mark.parametrize("way", WAYS)
def test_a_parcel_travels_once(far: Studio, tmp_path: Path, way: str) -> None:
    studio = by(way, far)
    model = tmp_path / "my model"
    (model / "inner").mkdir(parents=True)
    (model / "weights").write_bytes(bytes(range(256)) * 400)
    (model / "inner" / "link").symlink_to(model / "weights")
    parcel = make_parcel(model)
    told: list[str] = []
    report = lambda *phase: told.append(phase[0])  # noqa: E731
    assert send_parcels(studio, [parcel], report) == parcel.bytes == 2 * 102_400
    place = Path(parcel.place(studio.found.files))
    assert (place / "inner" / "link").read_bytes() == (model / "weights").read_bytes()
    assert not (place / "inner" / "link").is_symlink() and told[0] == "copying files"
    # Again, and under another name here: it is there.
    assert send_parcels(studio, [parcel, make_parcel(model)], report) == 0
    assert [one.name for one in Path(studio.found.files).iterdir()] == [parcel.digest]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_changes_on_the_way_is_not_used(far: Studio, tmp_path: Path, way: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    parcel = make_parcel(rows)
    rows.write_text('{"other": 1}\n')
    with pytest.raises(StudioError, match="arrived with other contents"):
        send_parcels(by(way, far), [parcel], lambda *phase: None)
    assert not Path(parcel.place(far.found.files)).exists()
    rows.write_text("{}\n")  # the remedy
    assert send_parcels(by(way, far), [parcel], lambda *phase: None) == 3
    assert Path(parcel.place(far.found.files)).read_text() == "{}\n"


def made_there(home: Path, job: JobFolder) -> JobFolder:
    """A job there that this process works on."""
    made = create_job(home / "making", "train", "far", {})
    target = home / "jobs" / job.id
    target.parent.mkdir(parents=True, exist_ok=True)
    theirs = JobFolder(made.path.rename(target))
    pid, start = own_identity()
    write_state(theirs.state_path, JobState(status="running", pid=pid, process_start=start))
    return theirs


def checkpoint(job: JobFolder, step: int) -> None:
    folder = job.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_text(f"weights of step {step}")
    seal(folder, step, {})


@pytest.mark.parametrize("way", WAYS)
def test_files_come_back_and_go_with_those_there(far: Studio, home_there: Path, tmp_path: Path, way: str) -> None:
    studio = by(way, far)
    job = create_job(tmp_path / "jobs", "train", "far", {})
    theirs = made_there(home_there, job)
    mirror = Mirror(studio, job, str(theirs.path), "all")

    def bring() -> None:
        given = {"id": job.id, "events": 0, "log": 0}
        end = time.monotonic() + 60
        while not mirror.update(studio.ask("look", given)["files"]):
            assert time.monotonic() < end
            time.sleep(0.05)

    checkpoint(theirs, 5)
    checkpoint(theirs, 10)
    (theirs.checkpoints / "checkpoint-15").mkdir()
    (theirs.checkpoints / "checkpoint-15" / "model.bin").write_text("half")
    theirs.model.mkdir()
    (theirs.model / "a file").write_text("one")
    asked, state = (job.path / "job.yaml").read_text(), job.state()
    bring()
    assert whole_steps(job.checkpoints) == [5, 10] and not (job.checkpoints / "checkpoint-15").exists()
    assert (job.model / "a file").read_text() == "one"
    assert (job.path / "job.yaml").read_text() == asked and job.state() == state
    shutil.rmtree(theirs.checkpoints / "checkpoint-5")
    (theirs.model / "a file").write_text("another")
    bring()
    assert whole_steps(job.checkpoints) == [10] and (job.model / "a file").read_text() == "another"
    assert sorted(one.name for one in job.path.iterdir() if one.name.startswith(".")) == []


def test_events_come_once_through_a_broken_connection(
    there: Sshd, far: Studio, home_there: Path, home: Path, settings: Settings
) -> None:
    """The run there is this test, which writes what a training writes; the connection breaks in between."""
    config = SshConfig(to=there.url, machine="box", python=far.python, poll=0.2)
    job = create_job(settings.jobs, "train", "far", {}, place=config.model_dump())
    theirs = made_there(home_there, job)
    update_record(job, begun=True, folder=str(theirs.path), python=far.python, paths={str(home_there): str(home)})
    theirs.environment_path.write_text(f'{{"base_model": {{"path": "{home_there}/models/x"}}}}')

    def work() -> None:
        writer = EventWriter(theirs.events_path)
        for step in range(1, 7):
            writer.write("metric", step=step, total_steps=6, values={"loss": 1.0})
            time.sleep(0.3)
            if step == 3:
                there.stop()
            if step == 5:
                there.start()
        writer.write("done", status="stopped")
        writer.close()
        theirs.log_path.write_text("what it wrote\n")
        write_state(theirs.state_path, theirs.state().with_(status="stopped", reason="it was stopped"))

    context = JobContext(job, settings)
    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(StoppedError, match="it was stopped"):
        ByMachine(context, config, far.machine).run()
    thread.join()
    events, _ = read_events(job.events_path)
    assert [one["step"] for one in events if one["kind"] == "metric"] == [1, 2, 3, 4, 5, 6]
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    told = [one["text"] for one in events if one["kind"] == "notice"]
    assert len(told) == 2 and "no connection to 127.0.0.1 since" in told[0] and "responding again" in told[1]
    assert not any(one["kind"] == "done" for one in events)  # the end here is told here
    assert job.environment()["base_model"]["path"] == f"{home}/models/x"
    assert os.getpid() == theirs.state().pid
