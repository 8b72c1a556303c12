"""An option under its old name is read wherever a config comes in, with a note, and written under its name of today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build, dump_run, run_of
from studio.config.presets import load_named
from studio.config.renamed import by_current_name
from studio.errors import InputErrors
from studio.jobs.actions.sweep import expand
from studio.jobs.store.files import write_atomic
from studio.jobs.store.folder import JobFolder, create_job
from studio.methods import METHODS
from studio.settings import Settings

NOTE = "training.packing is called training.padding_free now"


def test_a_file_and_set_are_read_and_told(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training: {packing: true, epochs: 3}\n")
    told: list[str] = []
    config = load_named(str(file), [], told.append)
    assert config.training.padding_free and config.training.epochs == 3 and told == [NOTE]
    assert "padding_free: true" in dump_run(config) and "packing:" not in dump_run(config)

    told.clear()
    assert not load_named(str(file), ["training.packing=false"], told.append).training.padding_free
    assert told == [NOTE]
    assert load_named("demo/sft", ["training.packing=true"], told.append).training.padding_free
    assert told == [NOTE, NOTE]


def test_todays_name_is_told_nothing() -> None:
    told: list[str] = []
    assert run_of({"training": {"padding_free": True}}, ["training.epochs=1"], "", told.append).training.padding_free
    assert told == []


def test_both_names_are_refused() -> None:
    raw: dict[str, Any] = {"training": {"packing": True, "padding_free": False}}
    with pytest.raises(InputErrors) as wrong:
        run_of(raw, [])
    (error,) = wrong.value.errors
    assert "training.packing" in error.what and "training.padding_free" in error.fix


def test_a_run_of_before_is_read_and_its_file_stays(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "old", {"training": {"padding_free": True}})
    written = job.path / "job.yaml"
    write_atomic(written, written.read_text().replace("padding_free", "packing"))
    before = written.read_bytes()
    config = JobFolder(job.path).request.config
    assert config["training"] == {"padding_free": True}
    assert build(RunConfig, config).training.padding_free and written.read_bytes() == before


def test_a_sweep_over_it() -> None:
    found = expand(RunConfig(), "run", {"training.packing": [True, False]})
    assert [one.config.training.padding_free for one in found] == [True, False]


def test_a_word_that_is_a_method_now_is_read_as_that_method(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = replace(METHODS["kto"], formerly=("dpo", "dpo_loss", "kto_pair"))
    monkeypatch.setitem(METHODS, "kto", moved)
    told: list[str] = []
    raw = {"method": {"name": "dpo", "dpo_loss": "kto_pair", "beta": 0.3}}
    config = run_of(raw, [], "", told.append)
    assert (config.method.name, config.method.beta, config.method.dpo_loss) == ("kto", 0.3, ["sigmoid"])
    assert told == ["method.dpo_loss kto_pair is the method kto now"]
    assert raw["method"]["name"] == "dpo", "what was given stays as it is"
    told.clear()
    assert run_of({}, ["method.name=dpo", "method.dpo_loss=sigmoid"], "", told.append).method.name == "dpo"
    # Beside another method the word had no effect, and has none now.
    assert run_of({"method": {"name": "sft", "dpo_loss": "kto_pair"}}, []).method.name == "sft"
    draft = {"method.name": "dpo", "method.dpo_loss": "kto_pair", "training.epochs": 2}
    assert by_current_name(draft) == {"method.name": "kto", "training.epochs": 2}
