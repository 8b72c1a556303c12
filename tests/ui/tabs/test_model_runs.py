"""Runs and merges as base models: offered by name, described, and found by the form, whatever the name is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr
import pytest

from studio.config import RunConfig
from studio.errors import InputErrors
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.labels import change_labels
from studio.jobs.store.state import JobState, write_state
from studio.models.catalog.names import ModelRef, confine_model
from studio.settings import Settings
from studio.train.runs import base_of, run_offers
from studio.ui.components.selected import base_run, run_of_model
from studio.ui.form.schema import Form, Values
from studio.ui.page import build_page
from studio.ui.server.services import Services
from studio.ui.tabs.model.tab import run_cards, run_facts
from tests.merge.made import put_child, put_run
from tests.models.checkpoints import write_checkpoint


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture
def values(services: Services) -> Callable[..., tuple[Form, Values]]:
    """A form, and its values with another model."""

    def make(model: str) -> tuple[Form, Values]:
        with gr.Blocks():
            form = Form(build_page(services))
        return form, form.raw(form.values(RunConfig())) | {"model.path": model}

    return make


def put_adapter(settings: Settings, name: str) -> None:
    run = create_job(settings.jobs, "train", name, {})
    run.model.mkdir()
    write_json(run.model / "adapter_config.json", {})
    write_state(run.state_path, JobState(status="completed"))


def test_whole_runs_and_merges_have_cards_by_name(services: Services, settings: Settings, tiny: Path) -> None:
    older, _ = put_run(settings, "same", tiny, tiny), put_adapter(settings, "adapter")
    child, newer = put_child(settings, "mixed", tiny), put_child(settings, "same", tiny)
    scorer = put_run(settings, "scorer", tiny, tiny, method={"name": "reward"})
    change_labels(put_run(settings, "away", tiny, tiny).path, archived=True)
    cards = {card["value"]: card["text"] for card in run_cards(services)}
    assert cards.keys() == {"mixed", "same", older.id}, "of one name the newest has it; no adapter, no reward model"
    assert cards["mixed"].startswith("merge · Linear · ") and cards["mixed"].endswith("made here")
    offered = [one["name"] for one in run_offers(settings)]
    assert {*cards} < {*offered} and scorer.name not in offered and newer.id not in offered
    assert base_run(services, "same") == newer and base_run(services, older.id) == older
    assert base_run(services, child.name) == child


def test_the_form_finds_the_model_of_a_name(
    services: Services, settings: Settings, tiny: Path, values: Callable[..., tuple[Form, Values]]
) -> None:
    child = put_child(settings, "mixed", tiny)
    form, filled = values("mixed")
    assert form.config(filled).model.path == str(child.model)
    assert confine_model(form.config(filled).model.path, settings) == str(child.model.resolve())
    assert form.typed(filled).model.path == "mixed", "a YAML file has the name"
    form, filled = values("nobody")
    assert form.config(filled).model.path == "nobody"
    put_adapter(settings, "orders")
    form, filled = values("orders")
    with pytest.raises(InputErrors, match="made an adapter, which is no model by itself") as error:
        form.config(filled)
    assert form.problem(error.value.errors[0])["field"] == "f-model-path"


def test_what_is_known_of_a_child_is_said(services: Services, settings: Settings, tiny: Path) -> None:
    child = put_child(settings, "mixed", tiny)
    for text in ("mixed", child.id, str(child.model)):
        facts = run_facts(text, services)
        assert facts is not None and facts["title"] == "mixed" and facts["state"] == "ready"
        assert facts["facts"][0] == ["Made by", "merge · Linear"] and ["Folder", str(child.model)] in facts["facts"]
    put_adapter(settings, "orders")
    refused = run_facts("orders", services)
    assert refused is not None and refused["state"] == "cannot be used" and "studio merge" in refused["note"]
    assert run_facts("smollm2-135m-instruct", services) is run_facts(str(tiny), services) is None


def test_a_run_records_whose_child_it_is(settings: Settings, tiny: Path) -> None:
    child = put_child(settings, "mixed", tiny)
    recorded = base_of(ModelRef(str(child.model), child.model, "local"), settings)
    assert recorded == {"name": "mixed", "path": str(child.model), "source": "local", "run": child.id}
    elsewhere = ModelRef(str(tiny), tiny, "local")
    assert base_of(elsewhere, settings) == {"name": str(tiny), "path": str(tiny), "source": "local"}
    assert run_of_model(settings, str(child.model)) == child
    assert run_of_model(settings, str(settings.jobs / "gone" / "model")) is None
