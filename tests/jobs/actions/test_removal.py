"""Removing jobs and checkpoints: only what is over and nobody needs, nothing outside the folder, never by half."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from studio.errors import InputError, StudioError
from studio.jobs import list_jobs
from studio.jobs.actions import removal
from studio.jobs.actions.branching import resume
from studio.jobs.actions.removal import (
    TRASH,
    empty_trash,
    refers,
    removal_question,
    remove_checkpoints,
    remove_job,
)
from studio.jobs.store import joblock
from studio.jobs.store.folder import JobFolder, create_job
from studio.jobs.store.state import JobState, own_identity, write_state
from studio.jobs.views.disk import measure
from studio.locks import locked
from tests.jobs.made import CHECKPOINT_BYTES, trained


def finished(settings, kind, name: str, config: dict[str, object], status="completed") -> JobFolder:
    job = create_job(settings.jobs, kind, name, config)
    write_state(job.state_path, JobState(status=status))
    return job


def test_a_removal_frees_what_it_said_and_touches_nothing_else(settings, tmp_path) -> None:
    job, other = (trained(settings.jobs, name) for name in ("a", "b"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (job.path / "link").symlink_to(outside, target_is_directory=True)
    (job.model / "file").symlink_to(outside / "mine.txt")
    question = removal_question(settings, [job], "job")
    assert question.freed == measure(job.path).total and not question.refused
    assert f"{question.freed / 1000:.2f} kB" in question.title and "'a'" in question.title
    assert remove_job(settings, job) == question.freed
    assert not job.path.exists() and [one.id for one in list_jobs(settings.jobs)] == [other.id]
    assert (outside / "mine.txt").read_text() == "mine"
    assert list(settings.jobs.iterdir()) == [other.path], "no trash is left"


@pytest.mark.parametrize("status", ["queued", "starting", "running", "stopping"])
def test_what_is_not_over_is_refused(settings, status) -> None:
    job = trained(settings.jobs, "a", status=status)
    for remove in (remove_job, remove_checkpoints):
        with pytest.raises(InputError, match=rf"'a' has not finished \({status}\)\. Stop it first"):
            remove(settings, job)
    assert job.checkpoints.exists()


def test_a_process_that_still_closes_down_keeps_its_folder(settings) -> None:
    job = trained(settings.jobs, "a")
    pid, start = own_identity()
    write_state(job.state_path, job.state().with_(pid=pid, process_start=start))
    with pytest.raises(InputError, match="has not finished"):
        remove_job(settings, job)


def test_only_folders_of_this_home_are_removed(settings, tmp_path) -> None:
    elsewhere = trained(tmp_path / "jobs", "a")
    linked = settings.jobs / elsewhere.id
    settings.jobs.mkdir(parents=True)
    linked.symlink_to(elsewhere.path, target_is_directory=True)
    for job in (elsewhere, JobFolder(linked)):
        with pytest.raises(InputError, match="is not in the studio's own jobs folder"):
            remove_job(settings, job)
    assert (elsewhere.model / "adapter_config.json").exists() and linked.is_symlink()


def test_the_question_names_what_was_made_from_it(settings) -> None:
    job = trained(settings.jobs, "a")
    job.exports.mkdir()
    (job.exports / "a-q4.gguf").write_bytes(b"x")
    users = [
        trained(settings.jobs, "tuned-on", tuning={"adapter": str(job.model)}),
        trained(settings.jobs, "rewarded", method={"reward_model": str(job.model)}),
        trained(settings.jobs, "based", model={"path": str(job.model)}),
        finished(settings, "evaluate", "score", {"run": job.id}),
        finished(settings, "export", "files", {"run": job.id, "types": ["q8_0"]}),
    ]
    by_record = trained(settings.jobs, "recorded")
    by_record.environment_path.write_text(f'{{"base_model": {{"path": "{job.model}"}}}}')
    stranger = trained(settings.jobs, "a-2", model={"path": f"{job.model.parent}-2/model"})
    assert [refers(user, job) for user in (*users, by_record, stranger, job)] == [True] * 6 + [False, False]
    said = " ".join(removal_question(settings, [job], "job").lines)
    named = [f"the run '{name}'" for name in ("tuned-on", "rewarded", "based", "recorded")]
    named += ["the evaluation 'score'", "the export 'files'"]
    assert sum(words in said for words in named) == 5 and "and 1 more" in said and "a-q4.gguf" in said
    assert f"'a' ({job.id})" in said
    assert "'a-2'" not in said
    together = removal_question(settings, [job, by_record, *users], "job")
    assert "created from it" not in " ".join(together.lines), "what goes as well misses nothing"
    assert not any("created from it" in line for line in removal_question(settings, [job], "checkpoints").lines)


def test_what_a_waiting_job_needs_is_refused(settings) -> None:
    job = trained(settings.jobs, "a")
    user = finished(settings, "evaluate", "score", {"run": job.id}, "queued")
    with pytest.raises(InputError, match="'score' needs 'a' and has not finished"):
        remove_job(settings, job)
    assert job.path.exists()
    write_state(user.state_path, JobState(status="completed"))
    assert remove_job(settings, job) > 0


def test_checkpoints_alone_go_and_the_model_stays(settings) -> None:
    job = trained(settings.jobs, "a", [1.0], status="stopped")
    question = removal_question(settings, [job], "checkpoints")
    assert "can then no longer be resumed from step 10" in " ".join(question.lines)
    assert question.freed == measure(job.path).checkpoints
    assert remove_checkpoints(settings, job) == question.freed
    assert not job.checkpoints.exists() and (job.model / "adapter_model.safetensors").exists()
    assert list(settings.jobs.glob(f"{TRASH}*")) == [] and remove_checkpoints(settings, job) == 0
    shutil.rmtree(job.model)
    assert "its checkpoints are its only result" in " ".join(removal_question(settings, [job], "checkpoints").lines)


def test_half_a_removal_is_never_listed_and_goes_with_the_next_start(settings, monkeypatch) -> None:
    job = trained(settings.jobs, "a")

    def broken(path: Path) -> None:
        (path / "log.txt").unlink(missing_ok=True)
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(removal.shutil, "rmtree", broken)
    with pytest.raises(StudioError, match=r"Input/output error.*the rest is removed at the next start"):
        remove_job(settings, job)
    monkeypatch.undo()
    assert list_jobs(settings.jobs) == [] and len(list(settings.jobs.glob(f"{TRASH}*"))) == 1
    empty_trash(settings.jobs)
    assert list(settings.jobs.iterdir()) == []
    empty_trash(settings.home / "none")


def test_a_folder_that_is_not_ours_can_be_removed_too(settings) -> None:
    job = trained(settings.jobs, "a")
    (job.path / "job.yaml").write_text("nonsense")
    assert removal_question(settings, [job], "job").title.startswith(f"Delete '{job.id}' permanently")
    assert remove_job(settings, job) > 0 and not job.path.exists()


def test_a_run_and_its_branch_free_what_they_share_only_together(settings) -> None:
    parent, child = trained(settings.jobs, "a"), trained(settings.jobs, "b")
    shutil.rmtree(child.checkpoints)
    shutil.copytree(parent.checkpoints, child.checkpoints, copy_function=os.link)
    shared = measure(parent.path).shared
    assert shared > CHECKPOINT_BYTES
    alone = [removal_question(settings, [job], "job").freed for job in (parent, child)]
    together = removal_question(settings, [parent, child, JobFolder(parent.path)], "job")
    assert together.freed == sum(alone) + shared and "2 jobs" in together.title
    assert sum(remove_job(settings, job) for job in (parent, child)) == together.freed


def test_two_pages_remove_one_job_and_a_third_resumes_it(settings, monkeypatch) -> None:
    job = trained(settings.jobs, "a", status="stopped")
    assert job.request.name == "a", "each page has read it"
    removed: list[int] = []

    def first(path, what):
        if not removed:  # the other page is quicker
            removed.append(0)
            removed.append(remove_job(settings, job))
        return locked(path, what)

    monkeypatch.setattr(joblock, "locked", first)
    assert remove_job(settings, job) == 0 and removed[1] > 0
    with pytest.raises(InputError, match="has been removed meanwhile"):
        resume(settings, job)
    assert not list(settings.jobs.iterdir()), "no folder is left whose name is taken"
