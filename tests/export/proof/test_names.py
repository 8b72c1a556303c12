"""The same model under two run names, from folders of two names: the same tokens, equal to the training's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from studio.export.job import export
from studio.export.proof.model import GgufModel
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from tests.export.phi3 import write_model


def exported(settings: Settings, base: Path, run_name: str) -> tuple[dict[str, Any], Path]:
    """The report and the f16 file of a full fine-tune that changed nothing."""
    run = create_job(settings.jobs, "train", run_name, {"data": {"train": [{"path": "demo/train.jsonl"}]}})
    shutil.copytree(base, run.model)
    write_json(run.environment_path, {"base_model": {"name": str(base), "path": str(base)}})
    write_state(run.state_path, JobState(status="completed"))
    job = create_job(settings.jobs, "export", run_name, {"run": run.id, "types": ["f16"]})
    export(JobContext(job, settings))
    (file,) = job.exports.glob("*.gguf")
    return json.loads((job.report / "export.json").read_text()), file


@pytest.mark.long
def test_the_names_of_run_and_folder_change_nothing(settings: Settings, tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain")
    named = shutil.copytree(plain, tmp_path / "Phi-3-mini-4k-instruct")
    files = []
    for base, run_name in ((plain, "phi-3-mini"), (plain, "x"), (named, "x")):
        report, file = exported(settings, base, run_name)
        assert report["files"][0]["verdict"] == "as trained", report["files"][0]
        files.append(file)
    ids = []
    for file in files:
        model = GgufModel(file, 512, 1)
        ids.append(model.chat_ids([{"role": "user", "content": "the  question\n"}]))
        model.close()
    assert ids[0] == ids[1] == ids[2]
    fields = GGUFReader(files[0]).fields
    assert "phi-3-mini" in fields["general.description"].contents()
    assert fields["general.name"].contents() == GGUFReader(files[1]).fields["general.name"].contents()
