"""Branching off a checkpoint: what the new run's folder holds, which changes fit, and that the other run stays."""

from __future__ import annotations

import shutil

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.jobs import JobFolder, Summaries, branching, read_events
from studio.jobs.branching import branch, check_changes, extended, find_checkpoint
from studio.jobs.checkpoints import seal
from studio.jobs.events import EventWriter
from studio.jobs.folder import Branch, create_job, list_jobs
from studio.jobs.queue import rewrite
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
    with pytest.raises(InputError, match="over at step 6"):
        branch(settings, parent, find_checkpoint(parent), "child", config(epochs=3), 6)
    assert len(list_jobs(settings.jobs)) == 1


@pytest.mark.parametrize("step", [1, 7])
def test_a_step_without_checkpoint_names_those_there_are(parent: JobFolder, step: int) -> None:
    with pytest.raises(InputError, match="There are: 3, 6"):
        find_checkpoint(parent, step)


def test_without_checkpoints_or_training_there_is_nothing_to_branch(settings: Settings) -> None:
    bare = create_job(settings.jobs, "train", "bare", {})
    other = create_job(settings.jobs, "evaluate", "other", {"run": "bare"})
    with pytest.raises(InputError, match="no whole checkpoint"):
        find_checkpoint(bare)
    with pytest.raises(InputError, match="no training"):
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
    assert JobFolder(child.path).request.config["training"]["learning_rate"] == 1e-5
