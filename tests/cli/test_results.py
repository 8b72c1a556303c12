"""What `studio evaluate` and `studio export` settle or refuse before a job is made, and what they say of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.cli.work import results
from studio.cli.work.results import export_config, run_evaluation
from studio.config.jobs import AUTO, HELD_OUT
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder
from studio.jobs.store.finding import jobs_of_kind
from studio.settings import Settings
from tests.ui.made_jobs import made_evaluation, made_run


@pytest.mark.parametrize("typed", ["./base", "base", "../here/base"])
def test_the_folder_of_a_base_model_means_the_same_in_the_job(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    here = tmp_path / "here"
    (here / "base").mkdir(parents=True)
    (here / "base" / "config.json").write_text("{}")
    run = made_run(settings.jobs)
    monkeypatch.chdir(here)
    named = export_config(settings, run.id, {"to": "adapter", "base": typed}).base
    assert named is not None and Path(named).is_absolute() and Path(named).samefile(here / "base")


def test_a_base_model_of_the_hub_stays_a_name(settings: Settings) -> None:
    run = made_run(settings.jobs)
    assert export_config(settings, run.id, {"to": "adapter", "base": "lab/base"}).base == "lab/base"
    assert export_config(settings, run.id, {"to": "adapter"}).base is None
    with pytest.raises(InputError, match=r"'\./gone' is neither a Hub id nor the folder of a model"):
        export_config(settings, run.id, {"to": "adapter", "base": "./gone"})


@pytest.mark.parametrize("data", [AUTO, HELD_OUT])
def test_a_run_without_held_out_rows_is_asked_for_some(settings: Settings, data: str) -> None:
    run = made_run(settings.jobs, "own", data={"train": [{"path": "/own.jsonl"}], "validation": 0})
    with pytest.raises(InputError, match=r"run 'own' held out no rows\. Choose a file of rows \(--data FILE\)"):
        run_evaluation(settings, run.id, {"data": data})
    assert not jobs_of_kind(settings.jobs, "evaluate")


def test_a_report_that_is_too_much_is_a_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(settings.jobs)
    done: JobFolder = made_evaluation(settings.jobs, run)
    (done.report / "evaluation.json").write_text("[" * 60 + "]" * 60)

    def submitted(*asked: Any) -> JobFolder:
        return done

    monkeypatch.setattr(results, "submit", submitted)
    monkeypatch.setattr(results, "follow", lambda job: job.state())
    with pytest.raises(StudioError, match="its report cannot be read: lists and mappings"):
        run_evaluation(settings, run.id, {"data": AUTO})
