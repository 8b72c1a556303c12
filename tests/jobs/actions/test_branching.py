"""Branching off a checkpoint: what the new run's folder holds, which changes fit, and that the other run stays."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.data.files.datafiles import file_sha256
from studio.errors import InputError, InputErrors
from studio.jobs import JobFolder, Summaries, read_events, resume
from studio.jobs.actions import branching
from studio.jobs.actions.branching import (
    branch,
    check_changes,
    extended,
    find_checkpoint,
    find_end,
    recorded_sources,
    require_same,
)
from studio.jobs.actions.queue import rewrite
from studio.jobs.store.checkpoints import BEST, best_step, seal, whole_steps
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import write_json
from studio.jobs.store.finding import list_jobs
from studio.jobs.store.folder import create_job
from studio.jobs.store.request import Branch
from studio.jobs.store.state import write_state
from studio.settings import Settings

PROGRESS = {"tokens": 30.0, "supervised_tokens": 9.0, "elapsed": 3.0, "training_seconds": 2.0}


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "ensure_supervisor", lambda settings: None)


def config(**training: object) -> RunConfig:
    return build(RunConfig, {"data": {"train": [{"path": "demo/extract.jsonl"}]}, "training": training})


@pytest.fixture
def parent(settings: Settings) -> JobFolder:
    job = create_job(settings.jobs, "train", "parent", config(epochs=3).model_dump(mode="json"))
    for step in (3, 6):
        folder = job.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"x" * step)
        seal(folder, step, PROGRESS)
    writer = EventWriter(job.events_path)
    writer.write("phase", phase="training", state="begin", done=0, total=6, unit="steps")
    for step in (1, 2, 3, 4):
        writer.write("metric", step=step, values={"loss": 9.0 - step}, tokens=10 * step, elapsed=float(step))
    writer.write("resume", step=3)
    for step in (4, 5, 6):
        writer.write("metric", step=step, values={"loss": 1.0}, tokens=10 * step, elapsed=float(step))
        writer.write("sample", step=step, prompt="p", answer="a")
    writer.close()
    return job


def made(settings: Settings, parent: JobFolder, step: int, **training: object) -> JobFolder:
    return branch(settings, parent, find_checkpoint(parent, step), "child", config(**training), 9)


def test_the_new_run_has_the_checkpoint_and_the_curve_until_there(settings: Settings, parent: JobFolder) -> None:
    child = made(settings, parent, 6, epochs=3, learning_rate=1e-5)
    assert child.request.branch == Branch(parent.id, 6)
    assert child.state().status == "queued" and child.state().attempt == 1
    assert find_checkpoint(child).step == 6 and find_checkpoint(child).progress == PROGRESS
    events = read_events(child.events_path)[0]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    curve = [(event["step"], event["values"]["loss"]) for event in events if event["kind"] == "metric"]
    assert curve == [(1, 8.0), (2, 7.0), (3, 6.0), (4, 1.0), (5, 1.0), (6, 1.0)]
    assert [event["step"] for event in events if event["kind"] == "sample"] == [4, 5, 6]
    assert (Summaries().of(child).step, Summaries().of(child).tokens) == (6, 60)


def test_an_earlier_checkpoint_takes_less_of_the_curve(settings: Settings, parent: JobFolder) -> None:
    child = made(settings, parent, 3, epochs=3)
    assert Summaries().of(child).step == 3
    assert not (child.checkpoints / "checkpoint-6").exists()


def test_the_new_run_stands_without_the_other(settings: Settings, parent: JobFolder) -> None:
    child = made(settings, parent, 6, epochs=3)
    shutil.rmtree(parent.path)
    assert find_checkpoint(child).step == 6
    assert (child.checkpoints / "checkpoint-6/adapter_model.safetensors").read_bytes() == b"x" * 6


def test_the_other_run_is_untouched(settings: Settings, parent: JobFolder) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(parent.path.rglob("*")) if path.is_file()}

    before = content()
    made(settings, parent, 3, epochs=3)
    assert content() == before


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"model": {"path": "other"}}, ["model.path"]),
        ({"data": {"train": [{"path": "other.jsonl"}]}}, ["data.train"]),
        ({"data": {"max_length": 64}}, ["data.max_length"]),
        ({"tuning": {"rank": 4}}, ["tuning.rank"]),
        ({"method": {"name": "pretrain"}}, ["method.name"]),
        ({"training": {"batch_size": 2, "seed": 7}}, ["training.batch_size", "training.seed"]),
        ({"training": {"optimizer": "sgd"}}, ["training.optimizer"]),
    ],
)
def test_what_a_checkpoint_does_not_fit_is_refused(parent: JobFolder, raw: dict, named: list[str]) -> None:
    base = {"data": {"train": [{"path": "demo/extract.jsonl"}]}}
    changed = {key: {**base.get(key, {}), **raw.get(key, {})} for key in (*base, *raw)}
    with pytest.raises(InputErrors) as caught:
        check_changes(parent, build(RunConfig, changed))
    assert [error.where for error in caught.value.errors] == named
    assert "tuning.adapter" in caught.value.sentence


def test_rate_schedule_and_length_may_change(parent: JobFolder) -> None:
    check_changes(parent, config(epochs=9, learning_rate=1e-5, scheduler="linear", warmup=0.0, eval_steps=2))


def test_a_run_that_would_be_over_where_it_begins_is_refused(settings: Settings, parent: JobFolder) -> None:
    with pytest.raises(InputError, match="would end at step 6"):
        branch(settings, parent, find_checkpoint(parent), "child", config(epochs=3), 6)
    assert len(list_jobs(settings.jobs)) == 1


@pytest.mark.parametrize("step", [1, 7])
def test_a_step_without_checkpoint_names_those_there_are(parent: JobFolder, step: int) -> None:
    with pytest.raises(InputError, match="Available: 3, 6"):
        find_checkpoint(parent, step)


def test_without_checkpoints_or_training_there_is_nothing_to_branch(settings: Settings) -> None:
    bare = create_job(settings.jobs, "train", "bare", {})
    other = create_job(settings.jobs, "evaluate", "other", {"run": "bare"})
    with pytest.raises(InputError, match="no usable checkpoint"):
        find_checkpoint(bare)
    with pytest.raises(InputError, match="not a training run"):
        find_checkpoint(other)


def test_extending_adds_epochs(parent: JobFolder) -> None:
    assert extended(parent, 2).training.epochs == 5
    with pytest.raises(InputError, match="above 0"):
        extended(parent, 0)


def test_a_run_with_a_step_limit_is_not_extended_by_epochs(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "short", config(max_steps=4).model_dump(mode="json"))
    with pytest.raises(InputError, match="max_steps"):
        extended(job, 1)


def test_a_disk_that_is_full_leaves_no_half_run(
    settings: Settings, parent: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(branching.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        made(settings, parent, 6, epochs=3)
    assert [job.id for job in list_jobs(settings.jobs)] == [parent.id]
    assert [path.name for path in settings.jobs.iterdir()] == [parent.id]


def test_a_waiting_branch_is_edited_as_far_as_its_checkpoint_fits(settings: Settings, parent: JobFolder) -> None:
    child = made(settings, parent, 6, epochs=3)
    rewrite(settings, child, config(epochs=4, learning_rate=1e-5).model_dump(mode="json"))
    assert JobFolder(child.path).request.config["training"]["epochs"] == 4
    assert JobFolder(child.path).request.branch == Branch(parent.id, 6)
    with pytest.raises(InputErrors, match="cannot change at a checkpoint"):
        rewrite(settings, child, config(epochs=4, batch_size=2).model_dump(mode="json"))
    with pytest.raises(InputError, match="would end at step 6"):
        rewrite(settings, child, config(max_steps=5).model_dump(mode="json"), 5)
    assert JobFolder(child.path).request.config["training"]["learning_rate"] == 1e-5
    rewrite(settings, child, config(max_steps=7).model_dump(mode="json"), 7)
    assert JobFolder(child.path).request.config["training"]["max_steps"] == 7


def recorded(job: JobFolder, path: Path) -> None:
    """Write what the worker records of its data."""
    source = {"path": str(path), "sha256": file_sha256(path), "bytes": path.stat().st_size}
    write_json(job.environment_path, {"data": {"sources": [source]}, "plan": {}})


def test_a_checkpoint_is_gone_on_from_only_with_its_own_data(settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n')
    values = build(RunConfig, {"data": {"train": [{"path": str(rows)}], "validation": 0}})
    parent = create_job(settings.jobs, "train", "parent", values.model_dump(mode="json"))
    folder = parent.checkpoints / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    seal(folder, 3, PROGRESS)
    recorded(parent, rows)
    child = branch(settings, parent, find_checkpoint(parent), "child", values, 9)
    assert recorded_sources(child) == recorded_sources(parent) and "plan" not in child.environment()
    whole = rows.read_text()
    for job, words in ((parent, "it had 28 bytes and has 14"), (child, "it had 28 bytes")):
        rows.write_text(whole[:14])
        with pytest.raises(InputError, match=words) as caught:
            branch(settings, job, find_checkpoint(job), "later", values, 9)
        assert caught.value.where == str(rows) and "tuning.adapter" in caught.value.fix
    rows.write_text('{"text": "b"}\n{"text": "a"}\n')
    write_state(parent.state_path, parent.state().with_(status="stopped"))
    before = parent.state()
    with pytest.raises(InputError, match="its SHA-256 was"):
        resume(settings, parent)
    assert parent.state() == before and len(list_jobs(settings.jobs)) == 2
    rows.unlink()
    with pytest.raises(InputError, match=re.escape(rows.name)):
        resume(settings, parent)
    rows.write_text(whole)
    assert resume(settings, parent).step == 3


def test_what_was_not_recorded_is_not_compared(parent: JobFolder) -> None:
    for content in ("[]", "{", '{"data": 5}', '{"data": {"sources": [5]}}', '{"data": {"sources": 5}}'):
        parent.environment_path.write_text(content)
        assert recorded_sources(parent) == []
    require_same([{"path": "x"}], [("x", "a" * 64)])
    with pytest.raises(InputError, match="aaaaaaaaaaaa and is bbbbbbbbbbbb"):
        require_same([{"sha256": "a" * 64}], [("x", "b" * 64)])


@pytest.mark.parametrize(
    ("best", "step", "steps"), [(3, 6, [3, 6]), (6, 6, [6]), (6, 3, [3]), (9, 6, [6]), (None, 6, [6])]
)
def test_the_best_checkpoint_until_there_comes_along(
    settings: Settings, parent: JobFolder, best: int | None, step: int, steps: list[int]
) -> None:
    if best is not None:
        write_json(parent.checkpoints / BEST, {"step": best, "metric": "eval_loss", "value": 1.0})
    child = made(settings, parent, step, epochs=3)
    assert whole_steps(child.checkpoints) == steps and find_checkpoint(child).step == step
    assert best_step(child.checkpoints) == (best if best in steps else None)


def test_a_done_run_is_extended_from_its_end_only(parent: JobFolder) -> None:
    assert find_end(parent).step == 6
    write_state(parent.state_path, parent.state().with_(status="completed"))
    assert find_end(parent).step == 6
    shutil.rmtree(parent.checkpoints / "checkpoint-6")  # keep_checkpoints: none, and the best was that of step 3
    with pytest.raises(InputError, match="ended at step 6, and its last checkpoint was removed") as caught:
        find_end(parent)
    assert "Branch from step 3" in caught.value.fix
    write_state(parent.state_path, parent.state().with_(status="stopped"))
    assert find_end(parent).step == 3
