"""A checkpoint of a run is exported as its result is, under a name that says which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from studio.errors import InputError
from studio.export.job import export
from studio.export.source import checkpoint_of, open_source
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import seal
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings


@pytest.fixture(scope="module")
def run(session_settings: Settings, small_run: JobFolder) -> JobFolder:
    """A run with checkpoints of the steps 5 and 10, neither of them its result, and half a one of step 15."""
    made = create_job(session_settings.jobs, "train", "kept", small_run.request.config)
    shutil.copytree(small_run.model, made.model)
    shutil.copyfile(small_run.environment_path, made.environment_path)
    for step in (5, 10, 15):
        folder = made.checkpoints / f"checkpoint-{step}"
        shutil.copytree(small_run.model, folder)
        file = folder / "adapter_model.safetensors"
        save_file({name: one * step / 20 for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
        if step < 15:
            seal(folder, step, {})
    write_state(made.state_path, JobState(status="completed"))
    return made


@pytest.mark.long
def test_a_checkpoint_is_exported_by_its_step(session_settings: Settings, run: JobFolder) -> None:
    config = {"run": run.id, "to": "adapter", "checkpoint": 10}
    context = JobContext(create_job(session_settings.jobs, "export", "adapter", config), session_settings)
    export(context)
    report = json.loads((context.job.report / "export.json").read_text())
    (entry,) = report["files"]
    assert (report["name"], entry["file"], entry["verdict"]) == ("kept-step-10", "kept-step-10-adapter", "as trained")
    written = (context.job.exports / entry["file"] / "adapter_model.safetensors").read_bytes()
    assert written == (run.checkpoints / "checkpoint-10" / "adapter_model.safetensors").read_bytes()
    assert written != (run.model / "adapter_model.safetensors").read_bytes()


def test_a_checkpoint_that_is_not_there_is_refused(session_settings: Settings, run: JobFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no checkpoint of step 7") as raised:
        open_source(session_settings, run.id, 7)
    assert (raised.value.where, raised.value.fix) == ("checkpoint", "Give one of 5, 10")
    with pytest.raises(InputError, match="step 15"):
        checkpoint_of(run, 15)
    none = JobFolder(shutil.copytree(run.path, tmp_path / "none"))
    shutil.rmtree(none.checkpoints)
    with pytest.raises(InputError) as raised:
        checkpoint_of(none, 5)
    assert "It keeps none" in raised.value.fix


def test_an_adapter_that_changed_its_base_has_no_checkpoint_of_its_own(
    session_settings: Settings, run: JobFolder
) -> None:
    config = {**run.request.config, "tuning": {"name": "lora", "init": "pissa"}}
    made = create_job(session_settings.jobs, "train", "began otherwise", config)
    shutil.copytree(run.checkpoints, made.checkpoints)
    write_json(made.environment_path, run.environment())
    write_state(made.state_path, JobState(status="stopped"))
    with pytest.raises(InputError, match="began as pissa"):
        checkpoint_of(made, 5)


def test_a_stopped_run_without_a_result_has_its_checkpoints(session_settings: Settings, run: JobFolder) -> None:
    made = create_job(session_settings.jobs, "train", "stopped early", run.request.config)
    shutil.copytree(run.checkpoints, made.checkpoints)
    write_json(made.environment_path, run.environment())
    write_state(made.state_path, JobState(status="stopped"))
    source = open_source(session_settings, made.id, 5)
    assert source.model == source.tokenizer == made.checkpoints / "checkpoint-5"
    assert (source.name, source.step) == ("stopped early-step-5", 5)
    with pytest.raises(InputError, match="has no trained model"):
        open_source(session_settings, made.id)
