"""A disk that gets full, at each kind of write: the job ends with the reason, and nothing older is damaged.

The folder or file that is to fill lies on a small file system of its own; what cannot be mounted is skipped.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.jobs import JobFolder, JobState, Summaries, ensure_supervisor, read_events, resume, wait
from studio.jobs.run import supervisor as module
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.checkpoints import last_whole, whole_steps
from studio.jobs.store.events import UNREADABLE
from studio.jobs.store.files import RESERVE, new_folder, put_folder, read_json, write_json, write_reserve
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from studio.settings import Settings
from studio.ui.routes.runlist import RunBook
from tests.train.test_killed import SECONDS, STEPS, equal

MB = 1_000_000
# Writes more and more of one kind; "fill" takes all that is left before the write that is to fail.
WORKER = """
import sys
from pathlib import Path
from studio.jobs.run.worker import run_worker

def fill():
    with open("filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass

def work(context):
    kind = context.config["mode"]
    context.environment(seed=1)
    context.metric(1, {"loss": 1.0}, total_steps=2)
    context.log("begun")
    if kind == "state":
        fill()
        context.set_state(status="stopping")
    if kind == "environment":
        fill()
        context.environment(seed="2" * 100_000)
    for step in range(100_000):
        if kind == "event":
            context.metric(2, {"loss": 1.0}, total_steps=2)
        if kind == "log":
            context.log("more and more")

raise SystemExit(run_worker("train", work))
"""


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Mount a file system of so many bytes on a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "studio-test", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def bound() -> Iterator[Callable[[Path, Path], None]]:
    """Show a file at another place."""
    places: list[Path] = []

    def bind(file: Path, place: Path) -> None:
        subprocess.run(["mount", "--bind", str(file), str(place)], check=True)
        places.append(place)

    yield bind
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def command(tmp_path: Path) -> Callable[[JobFolder], list[str]]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return lambda job: [sys.executable, str(script), str(job.path)]


def finish(supervisor: Supervisor, job: JobFolder, seconds: float = 60) -> JobState:
    end = time.monotonic() + seconds
    while not job.state().final:
        assert time.monotonic() < end, "it did not end"
        supervisor.step()
        time.sleep(0.05)
    return job.state()


def says_why(settings: Settings, job: JobFolder) -> None:
    """The state and the page's row have the reason and what to do."""
    state = job.state()
    assert (state.status, state.reason) == ("failed", "the disk was full")
    assert "Free some space" in state.fix
    (row,) = (row for row in RunBook(settings, Summaries()).rows() if row["id"] == job.id)
    assert (row["word"], row["fix"]) == ("failed: the disk was full", state.fix)


def on_a_small_disk(
    settings: Settings,
    mount: Callable[[Path, int], None],
    bind: Callable[[Path, Path], None],
    tmp_path: Path,
    kind: str,
) -> JobFolder:
    job = create_job(settings.jobs, "train", kind, {"mode": kind})
    if kind in ("event", "log"):
        mount(tmp_path / "small", 64 * 1024)
        path = job.events_path if kind == "event" else job.log_path
        # The file itself, not a link to it: a job's files are read through none.
        for file in (path, tmp_path / "small" / path.name):
            file.touch()
        bind(tmp_path / "small" / path.name, path)
        return job
    files = {path.name: path.read_bytes() for path in job.path.iterdir()}
    mount(job.path, 512 * 1024)
    for name, content in files.items():
        (job.path / name).write_bytes(content)
    return job


@pytest.mark.parametrize("kind", ["event", "log", "state", "environment"])
def test_the_reason_is_told_whatever_could_not_be_written(
    kind: str, settings: Settings, small_disk: Callable[[Path, int], None], bound: Callable[[Path, Path], None],
    command: Callable[[JobFolder], list[str]], tmp_path: Path,
) -> None:  # fmt: skip
    older = create_job(settings.jobs, "train", "older", {})
    write_state(older.state_path, JobState(status="completed"))
    job = on_a_small_disk(settings, small_disk, bound, tmp_path, kind)
    finish(Supervisor(settings, command), job)
    says_why(settings, job)
    events, _ = read_events(job.events_path, 0, 10**7)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert all(event.get("text") != UNREADABLE for event in events)
    assert any(event["kind"] == "metric" and event["step"] == 1 for event in events)
    assert job.environment()["seed"] == 1
    assert "begun" in job.log_path.read_text()
    assert older.state().status == "completed"


def test_a_disk_that_is_full_before_the_start(
    settings: Settings, small_disk: Callable[[Path, int], None], command: Callable[[JobFolder], list[str]]
) -> None:
    small_disk(settings.home, 512 * 1024)
    write_reserve(settings.home)  # as the supervisor does when it begins
    job = create_job(settings.jobs, "train", "waits", {"mode": "none"})
    with (settings.home / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    finish(Supervisor(settings, command), job)
    says_why(settings, job)
    assert not (settings.home / RESERVE).exists()


def test_the_supervisor_outlives_a_disk_that_stays_full(
    settings: Settings, small_disk: Callable[[Path, int], None], command: Callable[[JobFolder], list[str]]
) -> None:
    small_disk(settings.home, 512 * 1024)
    job = create_job(settings.jobs, "train", "waits", {"mode": "none"})
    filler = settings.home / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    supervisor = Supervisor(settings, command)
    assert module._step(supervisor) and module._step(supervisor)  # not even the reason can be written
    assert job.state().status == "queued"
    filler.unlink()
    assert finish(supervisor, job).status == "completed"


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, small_disk: Callable[[Path, int], None]) -> None:
    small_disk(tmp_path / "small", 64 * 1024)
    path = tmp_path / "small" / "environment.json"
    write_json(path, {"seed": 1})
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"seed": "2" * 100_000})
    assert read_json(path) == {"seed": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_model_is_replaced_only_by_a_whole_one(tmp_path: Path, small_disk: Callable[[Path, int], None]) -> None:
    small_disk(tmp_path / "job", 256 * 1024)
    target = tmp_path / "job" / "model"
    folder = new_folder(target)
    (folder / "adapter_model.safetensors").write_bytes(b"old")
    put_folder(folder, target)
    folder = new_folder(target)
    with pytest.raises(OSError, match="No space left"):
        (folder / "adapter_model.safetensors").write_bytes(bytes(MB))
    assert (target / "adapter_model.safetensors").read_bytes() == b"old"
    folder = new_folder(target)  # the next attempt; what the last one left is gone
    (folder / "adapter_model.safetensors").write_bytes(b"new")
    put_folder(folder, target)
    assert (target / "adapter_model.safetensors").read_bytes() == b"new"
    assert list((tmp_path / "job").iterdir()) == [target]


def allocated(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


@pytest.mark.faults
def test_a_checkpoint_that_does_not_fit(
    settings: Settings, whole: JobFolder, small_disk: Callable[[Path, int], None]
) -> None:
    one = last_whole(whole.checkpoints)
    assert one is not None
    job = create_job(settings.jobs, "train", "no room for a checkpoint", whole.request.config)
    small_disk(job.checkpoints, int(1.5 * allocated(one.path)))
    ensure_supervisor(settings)
    assert wait(job, seconds=SECONDS).final
    says_why(settings, job)
    found = last_whole(job.checkpoints)
    assert found is not None and whole_steps(job.checkpoints) == [found.step]  # the one that did fit
    subprocess.run(["mount", "-o", f"remount,size={100 * MB}", str(job.checkpoints)], check=True)
    resume(settings, job)
    assert wait(job, seconds=SECONDS).status == "completed"
    equal(job, whole)


@pytest.mark.faults
def test_a_model_that_does_not_fit(
    settings: Settings, whole: JobFolder, small_disk: Callable[[Path, int], None]
) -> None:
    config = whole.request.config
    config = {**config, "training": {**config["training"], "save_steps": 10 * STEPS, "eval_steps": STEPS}}
    job = create_job(settings.jobs, "train", "no room for the model", config)
    files = {path.name: path.read_bytes() for path in job.path.iterdir()}
    one = last_whole(whole.checkpoints)
    assert one is not None
    beside = 64 * 1024 + sum(allocated(path) for path in (whole.path, one.path)) - allocated(whole.checkpoints)
    small_disk(job.path, beside - allocated(whole.model) // 2)
    for name, content in files.items():
        (job.path / name).write_bytes(content)
    ensure_supervisor(settings)
    assert wait(job, seconds=SECONDS).final
    says_why(settings, job)
    assert not job.model.exists()
    phases = [event["phase"] for event in read_events(job.events_path, 0, 10**7)[0] if event["kind"] == "phase"]
    assert phases[-1] == "saving"
    found = last_whole(job.checkpoints)
    assert found is not None and found.step == STEPS
    subprocess.run(["mount", "-o", f"remount,size={100 * MB}", str(job.path)], check=True)
    resume(settings, job)
    assert wait(job, seconds=SECONDS).status == "completed"
    assert (job.model / "adapter_model.safetensors").exists()


@pytest.mark.faults
def test_an_export_that_does_not_fit(
    settings: Settings, adapter: Path, make_run: Callable[[Path], JobFolder], small_disk: Callable[[Path, int], None]
) -> None:
    run = make_run(adapter)
    config = {"run": str(run.path), "types": ["q8_0"]}
    job = create_job(settings.jobs, "export", "no room for the file", config)
    files = {path.name: path.read_bytes() for path in job.path.iterdir()}
    small_disk(job.path, 20 * MB)
    for name, content in files.items():
        (job.path / name).write_bytes(content)
    ensure_supervisor(settings)
    state = wait(job, seconds=SECONDS)
    assert state.status == "failed" and "is free" in state.reason and "Free some space" in state.fix, state
    assert [path for path in job.exports.rglob("*") if path.is_file()] == []
    assert (run.model / "adapter_model.safetensors").exists()
