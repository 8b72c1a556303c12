"""A home that the studio of 2026-11-28 made, before its modules went into rooms: all of it goes on.

The archive holds one run that is done and one that was stopped at step 2 of 8, made with commit 6e20021 by
`studio train demo/sft --set tuning.rank=1 --set tuning.target_modules=q_proj --set tuning.layers_to_transform=0-2 …`.
Its tokenizer files are those of the embedded model and are put back here; @HOME@ and @STUDIO@ stand for the folders.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from studio.jobs import find_job, read_events
from studio.settings import read_settings
from tests.conftest import call_studio, run_studio

ARCHIVE = Path(__file__).with_name("home_of_2026_11_28.tar.xz")
STUDIO = Path(__file__).resolve().parents[2]


@pytest.fixture
def older(home: Path, model_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    for file in (home / "jobs").rglob("*"):
        if "checkpoints" in file.parts:
            continue  # their sizes are recorded
        if file.suffix in (".yaml", ".json", ".jsonl", ".md", ".txt"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("@HOME@", str(home)).replace("@STUDIO@", str(STUDIO)), encoding="utf-8")
    for config in (home / "jobs").rglob("tokenizer_config.json"):
        shutil.copy(model_path / "tokenizer.json", config.parent)
    return home


def test_its_runs_are_shown_compared_and_planned_again(older: Path) -> None:
    listed = call_studio("jobs", "list", "--json", home=older).json["jobs"]
    assert {(one["name"], one["status"]) for one in listed} == {
        ("before", "completed"),
        ("stopped", "stopped"),
    }
    compared = call_studio("jobs", "compare", "before", "stopped", "--json", home=older)
    assert compared.code == 0 and "training.max_steps" in compared.stdout
    (written,) = older.glob("jobs/*-before/model/run.yaml")
    planned = call_studio("plan", str(written), "--json", home=older)
    assert planned.code == 0, planned.stderr
    assert planned.json["plan"]["steps"] == 4


@pytest.mark.long
def test_a_stopped_run_goes_on_and_the_other_is_evaluated_and_exported(older: Path) -> None:
    resumed = run_studio("jobs", "resume", "stopped", "--json", home=older)
    assert resumed.code == 0, resumed.stderr
    job = find_job(read_settings().jobs, "stopped", "train")
    assert job.state().status == "completed"
    events, _ = read_events(job.events_path)
    steps = [one["step"] for one in events if one["kind"] == "metric" and "loss" in one["values"]]
    assert steps == list(range(1, 9))
    for command in (
        ["evaluate", "before", "--limit", "2"],
        ["export", "before", "--to", "gguf", "--type", "q8_0"],
    ):
        done = run_studio(*command, "--json", home=older)
        assert done.code == 0, (command, done.stderr)
