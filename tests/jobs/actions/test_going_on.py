"""Going on after an early end: which checkpoints are whole, what may go on, what the readers of events make of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.jobs import JobFolder, Summaries, resume
from studio.jobs.actions import branching
from studio.jobs.store.checkpoints import BEST, SEAL, Kept, keep_only, last_whole, seal
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from studio.settings import Settings

PROGRESS = {"tokens": 5.0, "supervised_tokens": 2.0, "elapsed": 1.5, "training_seconds": 1.0}


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "ensure_supervisor", lambda settings: None)


def written(folder: Path, step: int, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "inner").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "inner/rng.pth"):
        (path / name).write_bytes(b"x" * step)
    if sealed:
        seal(path, step, PROGRESS)
    return path


def ended(settings: Settings, status: str, step: int | None = 10) -> JobFolder:
    job = create_job(settings.jobs, "train", f"run-{status}", {})
    if step is not None:
        written(job.checkpoints, step)
    write_state(job.state_path, job.state().with_(status=status, finished=time.time(), reason="x", exit_code=1))
    return job


def test_the_last_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert last_whole(tmp_path / "none") is None
    for step in (9, 10):
        written(tmp_path, step)
    written(tmp_path, 20, sealed=False)
    (tmp_path / "checkpoint-x").mkdir()
    found = last_whole(tmp_path)
    assert found is not None and (found.step, found.path.name, found.progress) == (10, "checkpoint-10", PROGRESS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "optimizer.pt").write_bytes(b"x"),
        lambda path: (path / "inner/rng.pth").unlink(),
        lambda path: (path / SEAL).write_text("{"),
        lambda path: (path / SEAL).write_text("[]"),
        lambda path: (path / SEAL).write_bytes(b"\xff"),
        lambda path: path.rename(path.with_name("checkpoint-30")),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    written(tmp_path, 10)
    damage(written(tmp_path, 20))
    found = last_whole(tmp_path)
    assert found is not None and found.step == 10


@pytest.mark.parametrize(
    ("kept", "best", "left"),
    [
        ("all", None, [5, 10, 20, 30]),
        ("last", None, [20]),
        ("last", 5, [5, 20]),
        ("none", None, []),
        ("none", 10, [10]),
        ("none", 99, []),
    ],
)
def test_which_checkpoints_stay_after_the_end(tmp_path: Path, kept: Kept, best: int | None, left: list[int]) -> None:
    for step in (5, 10, 20):
        written(tmp_path, step)
    written(tmp_path, 30, sealed=False)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    written(elsewhere, 50)
    (tmp_path / "checkpoint-40").symlink_to(elsewhere / "checkpoint-50", target_is_directory=True)
    if best is not None:
        (tmp_path / BEST).write_text(f'{{"step": {best}}}')
    gone = keep_only(tmp_path, kept)
    steps = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("checkpoint-*"))
    assert steps == [*left, 40] and sorted([*gone, *left]) == [5, 10, 20, 30]
    assert (elsewhere / "checkpoint-50" / SEAL).exists(), "links are not followed"


@pytest.mark.parametrize("status", ["stopped", "failed", "lost"])
def test_what_ended_early_is_queued_again(settings: Settings, status: str) -> None:
    job = ended(settings, status)
    job.stop_path.write_text("{}")
    assert resume(settings, job).step == 10
    state = job.state()
    assert (state.status, state.attempt, state.reason, state.exit_code) == ("queued", 2, "", None)
    assert not job.stop_path.exists()
    with pytest.raises(InputError, match="has not finished"):
        resume(settings, job)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (lambda settings: ended(settings, "completed"), "is done"),
        (lambda settings: ended(settings, "failed", None), "has no usable checkpoint"),
        (lambda settings: create_job(settings.jobs, "train", "waits", {}), "has not finished"),
        (lambda settings: create_job(settings.jobs, "export", "file", {}), "is not a training run"),
    ],
)
def test_what_cannot_go_on_says_why(settings: Settings, job: Callable[[Settings], JobFolder], words: str) -> None:
    made = job(settings)
    before = made.state()
    with pytest.raises(InputError, match=words) as caught:
        resume(settings, made)
    assert caught.value.fix and made.state() == before


def test_a_summary_goes_back_with_the_run(settings: Settings) -> None:
    job = ended(settings, "failed")
    events, summaries = EventWriter(job.events_path), Summaries()
    for step, loss in ((5, 2.0), (10, 3.0), (15, 1.0)):
        values = {"loss": 1.0, "eval_loss": loss}
        events.write("metric", step=step, total_steps=20, tokens=100 * step, elapsed=1.0 * step, values=values)
    before = summaries.of(job)
    assert (before.step, before.best) == (15, (1.0, 15))
    events.write("resume", step=10)
    back = summaries.of(job)
    assert (back.step, back.best, back.values, back.total_steps) == (10, (2.0, 5), {}, 20)
    events.write("metric", step=11, total_steps=20, tokens=1100, elapsed=11.0, values={"loss": 0.5})
    assert (summaries.of(job).step, summaries.of(job).tokens) == (11, 1100)
    events.write("resume", step=0)
    events.write("metric", step=0, total_steps=20, values={"eval_loss": 0.1})  # nothing was learned yet
    assert (summaries.of(job).step, summaries.of(job).best) == (0, None)
