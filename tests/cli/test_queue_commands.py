"""`studio jobs move | edit | duplicate | devices` and `studio train --sweep`, on a line that nobody starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.cli.jobs import queue
from studio.cli.main import main
from studio.config.presets import load_named
from studio.jobs import JobFolder, list_jobs
from studio.jobs.actions import client
from studio.jobs.actions.queue import waiting
from studio.jobs.store.folder import create_job
from studio.jobs.store.request import Branch
from studio.jobs.store.state import write_state
from studio.settings import Settings

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def line(
    session_settings: Settings, model_path: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[JobFolder]:
    """Three runs that wait in a folder of jobs of each test's own, beside the prepared model."""
    monkeypatch.setattr(client, "ensure_supervisor", lambda settings: None)
    monkeypatch.setattr(queue, "ensure_supervisor", lambda settings: None)
    monkeypatch.setattr(Settings, "jobs", property(lambda self: self.home / f"jobs-of-{tmp_path.name}"))
    (session_settings.home / "queue.json").unlink(missing_ok=True)
    config = load_named("demo/sft").model_dump(mode="json")
    return [create_job(session_settings.jobs, "train", name, config) for name in ("one", "two", "three")]


@pytest.fixture
def run(line: list[JobFolder], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line with --json; returns exit code and answer."""

    def studio(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return studio


def names(settings: Settings) -> list[str]:
    return [job.request.name for job in waiting(settings)]


def test_a_waiting_run_is_moved_and_edited(line: list[JobFolder], run: Run, session_settings: Settings) -> None:
    assert run("jobs", "move", line[2].id, "first") == (0, {"id": line[2].id, "place": 1})
    assert names(session_settings) == ["three", "one", "two"]
    code, answer = run("jobs", "move", line[2].id, "up-up")
    assert code == 2 and "up, down, first, last" in answer["error"]["fix"]

    code, answer = run("jobs", "edit", line[0].id, "--set", "training.epochs=4", "--set", "tuning.rank=8")
    assert (code, answer["status"]) == (0, "queued")
    config = JobFolder(line[0].path).request.config
    assert (config["training"]["epochs"], config["tuning"]["rank"]) == (4, 8)
    for sets, words in [
        ([], "needs a change"),
        (["--set", "training.epoch=4"], "Did you mean 'training.epochs'?"),
        (["--set", "training.device=cuda:0"], "there is no device 'cuda:0' here. Set it to any or cpu."),
    ]:
        code, answer = run("jobs", "edit", line[0].id, *sets)
        assert code == 2 and words in answer["error"]["sentence"]
    write_state(line[0].state_path, line[0].state().with_(status="running"))
    code, answer = run("jobs", "edit", line[0].id, "--set", "training.epochs=9")
    assert code == 2 and "has already started" in answer["error"]["what"]
    assert JobFolder(line[0].path).request.config == config


@pytest.mark.long
def test_a_waiting_branch_is_not_cut_below_its_checkpoint(
    line: list[JobFolder], run: Run, session_settings: Settings
) -> None:
    config = load_named("demo/sft", ["training.max_steps=20"]).model_dump(mode="json")
    job = create_job(session_settings.jobs, "train", "child", config, branch=Branch("parent", 10))
    code, answer = run("jobs", "edit", job.id, "--set", "training.max_steps=5")
    assert code == 2 and "would end at step 10" in answer["error"]["what"]
    assert JobFolder(job.path).request.config == config
    assert run("jobs", "edit", job.id, "--set", "training.max_steps=11")[0] == 0


@pytest.mark.long
def test_any_run_is_duplicated_with_its_whole_config(
    line: list[JobFolder], run: Run, session_settings: Settings
) -> None:
    write_state(line[0].state_path, line[0].state().with_(status="failed", reason="x"))
    code, answer = run("jobs", "duplicate", line[0].id)
    assert code == 0
    made = next(job for job in list_jobs(session_settings.jobs) if job.id == answer["id"])
    assert made.request.name == "one-2" and made.request.config == line[0].request.config
    code, answer = run("jobs", "duplicate", line[1].id, "--set", "training.seed=7", "--name", "mine")
    made = next(job for job in list_jobs(session_settings.jobs) if job.id == answer["id"])
    assert made.request.name == "mine" and made.request.config["training"]["seed"] == 7
    code, answer = run("jobs", "duplicate", line[1].id, "--name", "mine")
    assert code == 2 and "a run 'mine' already exists" in answer["error"]["what"]
    export = create_job(session_settings.jobs, "export", "file", {"run": "one"})
    code, answer = run("jobs", "duplicate", export.id)
    assert code == 2 and "is not a training run" in answer["error"]["what"]
    create_job(session_settings.jobs, "merge", "mixed", {"recipe": "models: [{model: a}]"})
    for words in (("duplicate", "mixed"), ("branch", "mixed"), ("extend", "mixed", "--epochs", "1")):
        code, answer = run("jobs", *words)
        assert code == 2 and "'mixed' is a merge, which has no checkpoints" in answer["error"]["what"]
        assert "model.path=mixed" in answer["error"]["fix"]


def test_a_sweep_is_checked_whole_and_queued_whole(line: list[JobFolder], run: Run, session_settings: Settings) -> None:
    before = names(session_settings)
    wrong = ["--sweep", "data.max_length=512,16,8", "--sweep", "tuning.rank=8,16"]
    code, answer = run("train", "demo/sft", "--name", "grid", *wrong)
    assert code == 2 and len(answer["errors"]) == 4
    assert answer["errors"][0]["where"].startswith("grid-max_length-16-rank-8: ")
    for sweep, words in [
        ("tuning.rank", "is not OPTION=VALUES"), ("tuning.rank=", "no values"), ("tuning.rnk=1", "tuning.rank"),
        ("tuning.rank=4,8 --sweep tuning.rank=16", "--sweep names tuning.rank twice"),
    ]:  # fmt: skip
        code, answer = run("train", "demo/sft", "--sweep", *sweep.split())
        assert code == 2 and words in answer["error"]["sentence"]
    assert names(session_settings) == before

    code, answer = run("train", "demo/sft", "--name", "grid", "--sweep", "training.learning_rate=1e-4,2e-4")
    assert code == 0
    assert [one["changes"] for one in answer["runs"]] == [
        {"training.learning_rate": 1e-4}, {"training.learning_rate": 2e-4},
    ]  # fmt: skip
    assert names(session_settings) == [*before, "grid-learning_rate-0.0001", "grid-learning_rate-0.0002"]
    made = waiting(session_settings)[-2:]
    assert {job.request.group for job in made} == {answer["group"]}
    assert [job.request.config["training"]["learning_rate"] for job in made] == [1e-4, 2e-4]


def test_devices_are_listed(line: list[JobFolder], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(line[0].state_path, line[0].state().with_(status="running", device="cpu"))
    monkeypatch.setenv("STUDIO_DEVICES", "cpu*2")
    code, answer = run("jobs", "devices")
    assert code == 0
    assert answer["devices"] == [{"name": "cpu", "title": "processor", "jobs_at_once": 2, "running": ["one"]}]
