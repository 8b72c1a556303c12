"""Two runs of the real model become one that chats, is evaluated, exported and trained on, through the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.jobs import JobFolder, find_job
from studio.jobs.views.differences import settings_of
from studio.settings import ASSETS, Settings
from tests.conftest import run_studio
from tests.merge.made import put_run

RECIPE = """
merge_method: ties
base_model: smollm2-135m-instruct
models:
  - {model: tuned one, parameters: {weight: 0.6, density: 0.5}}
  - {model: tuned two, parameters: {weight: 0.4, density: 0.5}}
"""


@pytest.fixture(scope="module")
def merged(
    session_settings: Settings, session_home: Path, model_path: Path, make_adapter: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:  # fmt: skip
    """What `studio merge` printed."""
    for seed, name in enumerate(("tuned one", "tuned two")):
        put_run(session_settings, name, make_adapter(seed, model_path, std=0.01), model_path)
    file = tmp_path_factory.mktemp("recipe") / "ties.yaml"
    file.write_text(RECIPE)
    done = run_studio("merge", str(file), "--name", "merged", "--json", home=session_home)
    assert done.code == 0, done.stderr
    return done.json


@pytest.fixture(scope="module")
def child(merged: dict[str, Any], session_settings: Settings) -> JobFolder:
    return find_job(session_settings.jobs, "merged", "merge")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "three.jsonl"
    path.write_text("".join((ASSETS / "demo" / "test.jsonl").read_text().splitlines(keepends=True)[:3]))
    return path


@pytest.mark.long
def test_it_is_merged_and_told(merged: dict[str, Any], child: JobFolder, model_path: Path) -> None:
    assert merged["id"] == child.id and merged["method"] == "ties" and merged["warnings"] == []
    assert [parent["kind"] for parent in merged["parents"]] == ["run", "run", "embedded"]
    dtype = json.loads((model_path / "config.json").read_text())["dtype"]
    assert json.loads((child.model / "config.json").read_text())["dtype"] == dtype
    assert merged["parameters"] == pytest.approx(134.5e6, rel=0.01)


@pytest.mark.long
def test_the_memory_that_was_foretold_is_enough(merged: dict[str, Any]) -> None:
    # Pages of mapped files count in the peak and not in what was foretold.
    mapped = 3 * 4 * 134.5e6
    peak = next(phase["peak_bytes"] for phase in merged["phases"] if phase["phase"] == "merging")
    assert peak < 700e6 + 28.3e6 * 4 * (3 + 4) + 538e6 + mapped


@pytest.mark.long
def test_it_chats(child: JobFolder, session_home: Path) -> None:
    done = run_studio("chat", "merged", "--prompt", "What is the capital of France?", "--json", home=session_home)
    assert done.code == 0, done.stderr
    assert done.json["model"] == "tuned" and done.json["text"].strip()


@pytest.mark.long
def test_it_is_evaluated(child: JobFolder, session_home: Path, rows: Path) -> None:
    done = run_studio("evaluate", "merged", "--data", str(rows), "--json", home=session_home)
    assert done.code == 0, done.stderr
    assert done.json["run"] == child.id and done.json["after"]["total"] == 3


@pytest.mark.long
def test_it_is_exported(child: JobFolder, session_home: Path) -> None:
    done = run_studio("export", "merged", "--type", "q8_0", "--json", home=session_home)
    assert done.code == 0, done.stderr
    assert [file["verdict"] for file in done.json["files"]] == ["as expected"]


@pytest.mark.long
def test_it_is_trained_on(child: JobFolder, session_home: Path, session_settings: Settings) -> None:
    sets = ["model.path=merged", "training.max_steps=1", "training.batch_size=1", "data.validation=0"]
    asked = [word for one in sets for word in ("--set", one)]
    done = run_studio("train", "demo/sft", "--name", "further", *asked, "--json", home=session_home)
    assert done.code == 0, done.stderr
    run = find_job(session_settings.jobs, "further", "train")
    recorded = {"name": "merged", "path": str(child.model), "source": "local", "run": child.id}
    assert run.environment()["base_model"] == recorded
    settings = {row.key: row.text for row in settings_of(run)[0]}
    assert settings["model.path"] == f"merged ({child.id})"
    done = run_studio("chat", "further", "--prompt", "What is the capital of France?", "--json", home=session_home)
    assert done.code == 0 and done.json["text"].strip(), done.stderr
    shutil.rmtree(run.path)
