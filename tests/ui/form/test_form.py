"""The form without a browser: components from the schema, values in and out, plans, uploads, names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.describe import OptionSpec, options_of
from studio.config.load import dump_run, load_run
from studio.config.presets import load_named, preset_names
from studio.data.worker.pool import DataPool
from studio.errors import InputError, InputErrors
from studio.jobs import Summaries, find_job
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from studio.ui.form.fields import from_field, is_number, to_field
from studio.ui.form.meta import Meta
from studio.ui.form.origin import known
from studio.ui.form.planline import Planner
from studio.ui.form.reading import left_out
from studio.ui.form.schema import Form, linked, make_component
from studio.ui.page import Page, build_page
from studio.ui.server.services import Services
from studio.ui.tabs.data import files as datafiles
from studio.ui.tabs.data import tab as data
from studio.ui.tabs.data import values as datavalues
from studio.ui.tabs.data.tokens import SHOWN, row_value
from studio.ui.tabs.method import tab as method
from studio.ui.tabs.model import tab as model

SPECS = list(options_of(RunConfig))


def built(settings: Settings) -> Page:
    """Build a page's set-up tabs."""
    services = Services(settings=settings, summaries=Summaries(), data=DataPool(settings), chats=None)  # type: ignore[arg-type]
    with gr.Blocks():
        page = build_page(services)
        with gr.Tabs() as page.tabs:
            for name, module in (("model", model), ("data", data), ("method", method)):
                with gr.Tab(name, id=name):
                    module.build(page)
    return page


@pytest.fixture
def page(settings: Settings) -> Page:
    """A page over an empty home, for tests that submit runs or look at its files."""
    return built(settings)


@pytest.fixture(scope="module")
def form(session_settings: Settings) -> Form:
    """A form that tests only read: to build one takes more than a second."""
    return built(session_settings).form


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.path)
def test_every_option_is_on_the_page_once(spec: OptionSpec, form: Form) -> None:
    assert list(form.components) and set(form.components) == set(form.specs)
    component = form.components[spec.path]
    if spec.path not in ("data.train", "method.name", "tuning.name", "training.engine"):  # own pieces
        assert component.label == spec.title
        assert linked(spec.help) in component.info and (spec.unit or "") in component.info


@pytest.mark.parametrize("name", [*preset_names(), ""])
def test_config_to_form_and_back(form: Form, name: str) -> None:
    config = load_named(name) if name else RunConfig()
    assert form.config(form.raw(form.values(config))) == config


def test_the_page_opens_with_the_demo(form: Form) -> None:
    assert form.config(form.start) == load_named("demo/sft")
    assert form.changed(form.start) == []


def test_yaml_round_trip_through_the_form(form: Form, tmp_path: Path) -> None:
    values = {
        **form.start,
        "tuning.target_modules": "q_proj, v_proj",
        "training.seed": 7,
        "training.learning_rate": "3e-4",
    }
    config = form.config(values)
    file = tmp_path / "run.yaml"
    file.write_text(dump_run(config))
    again = form.raw(form.values(load_run(file)))
    assert form.config(again) == config
    assert again["tuning.target_modules"] == "q_proj, v_proj" and again["training.learning_rate"] == "0.0003"


def test_all_wrong_values_are_said_at_once(form: Form) -> None:
    values = {
        **form.start,
        "tuning.rank": 5000,
        "training.learning_rate": "abc",
        "training.epochs": None,
        "data.train": [],
    }
    with pytest.raises(InputErrors) as caught:
        form.config(values)
    assert {error.where for error in caught.value.errors} == {
        "tuning.rank", "training.learning_rate", "training.epochs", "data.train",
    }  # fmt: skip
    assert form.problem(caught.value.errors[0])["sentence"].split(":")[0] in {spec.title for spec in SPECS}


def test_what_does_not_apply_is_left_out(form: Form) -> None:
    values = {**form.start, "tuning.name": "full", "tuning.rank": 0, "tuning.dropout": 7}
    config = form.config(values)
    assert not config.tuning.kind.adapter and config.tuning.rank == RunConfig().tuning.rank
    assert form.changed(values) == ["tuning.name"]


def test_what_needs_another_option_is_read_only_with_it(form: Form) -> None:
    nonsense = {**form.start, "training.early_stopping_threshold": "abc", "model.rope_factor": 8}
    assert form.config(nonsense) == form.config(form.start), "nothing reads them, so nothing is said of them"
    assert form.changed(nonsense) == []
    scaled = form.config({**nonsense, "model.rope_scaling": "yarn"})
    assert scaled.model.rope_factor == 8
    with pytest.raises(InputErrors, match=r"'abc'|valid number"):
        form.config({**nonsense, "training.early_stopping": "2"})
    off = {**form.start, "training.activation_checkpointing": "off", "training.activation_offloading": "on"}
    assert form.config(off).training.activation_offloading == "auto"
    assert form.config({**off, "training.activation_checkpointing": "auto"}).training.activation_offloading is True
    regex = {**form.start, "method.name": "grpo", "method.reward_pattern": "x"}
    assert form.config({**regex, "method.rewards": "length , regex", "method.reward_length": "3"}).method.reward_pattern
    assert form.config({**regex, "method.rewards": "numeric"}).method.reward_pattern is None


def test_values_that_are_not_read_are_named_with_what_reads_them(page: Page) -> None:
    form, planner = page.form, Planner(page.form, page.services)
    assert left_out(form.specs, form.start) == ""
    values = {
        **form.start, "training.epochs": "", "tuning.name": "full", "tuning.rank": 64, "model.rope_factor": 8,
        "method.beta": 0.3, "training.activation_checkpointing": "off",
        "training.activation_offloading": "on",
    }  # fmt: skip
    shown = planner.payload(values, Meta())
    assert "RoPE factor 8 (needs RoPE scaling linear, dynamic, yarn or llama3)" in shown["left_out"]
    assert "Rank 64 (for LoRA, QLoRA or DoRA)" in shown["left_out"]
    assert "Activation offloading on (needs Activation checkpointing auto or on)" in shown["left_out"]
    assert re.search(r"Beta 0\.3 \(for DPO, .* or GRPO\)", shown["left_out"])
    assert {"f-training-activation_offloading", "f-model-rope_factor"} <= set(shown["unread"])
    long = left_out(form.specs, {**form.start, "method.reward_pattern": "x" * 5000})
    assert len(long) < 200 and "…" in long


@pytest.mark.parametrize("value", [2.5, 16.25])
def test_a_fraction_of_a_whole_number_is_not_rounded(form: Form, value: float) -> None:
    assert form.components["tuning.rank"].preprocess(value) == value  # type: ignore[arg-type]
    with pytest.raises(InputErrors) as caught:
        form.config({**form.start, "tuning.rank": value})
    assert f"{value}" in form.problem(caught.value.errors[0])["here"]


def test_the_plan_line_has_titles_of_methods(page: Page) -> None:
    planner = Planner(page.form, page.services)
    for name, title in (("pretrain", "Pretraining"), ("reward", "Reward model"), ("simpo", "SimPO")):
        values = page.form.raw(page.form.values(load_named(f"demo/{name}")))
        assert planner.payload({**values, "training.epochs": ""}, Meta())["what"].endswith(f"· {title}")


def test_conditional_fields_carry_their_classes(form: Form) -> None:
    assert {"by-tuning", "for-tuning-lora"} <= set(form.components["tuning.rank"].elem_classes)
    assert "by-tuning" not in form.components["training.epochs"].elem_classes


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.auto or spec.optional], ids=lambda spec: spec.path)
def test_automatic_and_empty_values(spec: OptionSpec) -> None:
    assert not is_number(spec)
    with gr.Blocks():
        assert not isinstance(make_component(spec, to_field(spec, spec.default)), gr.Number)
    assert from_field(spec, "") == (None if spec.optional else "auto")


def test_a_draft_is_restored_by_name(form: Form) -> None:
    kept = form.restored({"values": {"training.seed": 9, "training.packing": True, "gone.option": 1}})
    assert kept[list(form.specs).index("training.seed")] == 9
    assert kept[list(form.specs).index("training.padding_free")] is True, "a draft from before the option was renamed"
    assert len(kept) == len(form.specs)
    for broken in (None, 3, {}, {"values": []}):
        assert len(form.restored(broken)) == len(form.specs)


def test_what_a_page_of_before_kept_is_known_by_its_new_name(form: Form) -> None:
    held = {**form.start, "training.packing": True}
    del held["training.padding_free"]
    found = known(form, {"name": "demo", "values": held, "kept": ["training.packing"], "went": {}, "since": ""})
    assert found["values"].keys() == form.start.keys() and found["kept"] == ["training.padding_free"]


def test_meta_takes_nothing_from_garbage() -> None:
    assert Meta.read('{"name": " x ", "sequence": 4, "row": 0, "set": []}') == Meta("x", 4)
    for text in (None, "", "[]", '{"name": 1}', "{"):
        assert Meta.read(text) == Meta()


def test_names_are_free(page: Page, settings: Settings) -> None:
    planner = Planner(page.form, page.services)
    config = page.form.config(page.form.start)
    assert planner.default_name(config) == "demo-lora-16"
    create_job(settings.jobs, "train", "demo-lora-16", config.model_dump(mode="json"))
    assert planner.default_name(config) == "demo-lora-16-2"
    with pytest.raises(InputError, match="demo-lora-16-2"):
        planner.start(page.form.start, Meta(name="demo-lora-16"))


def test_a_run_may_be_queued_before_its_model_is_here(page: Page, settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.setattr("studio.jobs.actions.client.ensure_supervisor", lambda settings: None)
    planner = Planner(page.form, page.services)
    values = {**page.form.start, "model.path": "someone/some-model"}
    assert "downloaded when the run starts" in planner.payload(values, Meta())["line"]
    job = find_job(settings.jobs, planner.start(values, Meta(name="later")))
    assert job.request.config["model"]["path"] == "someone/some-model"
    outside = {**values, "data.train": [{"path": "/etc/passwd", "format": "auto"}]}
    with pytest.raises(InputError):
        planner.start(outside, Meta(name="outside"))


def test_paths_outside_are_refused(page: Page) -> None:
    planner = Planner(page.form, page.services)
    shown = planner.payload({**page.form.start, "model.path": "/etc"}, Meta(sequence=3))
    assert shown["sequence"] == 3 and "outside" in shown["errors"][0]["sentence"]
    assert shown["errors"][0]["field"] == "f-model-path"
    other = planner.payload({**page.form.start, "tuning.adapter": "/etc"}, Meta())["errors"]
    assert [one["field"] for one in other] == ["f-tuning-adapter"] and "may not read '/etc'" in other[0]["here"]


def test_an_upload_never_replaces_a_file(settings: Settings, tmp_path: Path) -> None:
    packed = tmp_path / "rows.csv.gz"
    for content, name in ((b"1", "rows.csv.gz"), (b"1", "rows.csv.gz"), (b"2", "rows-2.csv.gz"), (b"1", "rows.csv.gz")):
        packed.write_bytes(content)
        assert datafiles.keep_upload(packed, settings).name == name
    file = tmp_path / "rows of mine.jsonl"
    file.write_text("1")
    first = datafiles.keep_upload(file, settings)
    file.write_text("2")
    second = datafiles.keep_upload(file, settings)
    assert (first.name, second.name) == ("rows-of-mine.jsonl", "rows-of-mine-2.jsonl")
    assert (first.read_text(), second.read_text()) == ("1", "2")
    assert len(list(settings.uploads.iterdir())) == 4, "the same content is the same file"


def test_an_upload_is_there_whole_or_not_at_all(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("12345")

    def full(source: Any, out: Any) -> None:
        out.write(source.read(2))
        # The page of another server is sent the same file meanwhile: it finds no half of one.
        monkeypatch.undo()
        assert datafiles.keep_upload(file, settings).read_text() == "12345"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datafiles.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        datafiles.keep_upload(file, settings)
    assert [path.name for path in settings.uploads.iterdir()] == ["rows.jsonl"]
    assert datafiles.keep_upload(file, settings).name == "rows.jsonl"


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.jsonl.exe", "rows.gz"])
def test_only_data_files_are_taken(settings: Settings, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="not a data file"):
        datafiles.keep_upload(tmp_path / name, settings)


def test_a_large_upload_is_refused(settings: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(datafiles, "UPLOAD_BYTES", 3)
    (tmp_path / "a.json").write_text("[{}]")
    with pytest.raises(InputError, match="uploads are limited to"):
        datafiles.keep_upload(tmp_path / "a.json", settings)


def test_the_demo_makes_room_for_own_data() -> None:
    demo, held_out = datafiles.demo_data("dpo")
    assert held_out == "demo/pairs_test.jsonl"
    own, validation = datafiles.joined(demo, held_out, "/x/a.jsonl")
    assert own == [DataSource(path="/x/a.jsonl").model_dump(mode="json")]
    assert validation == "0.1"  # the demo's rows say nothing about own data
    assert datafiles.joined(own, "/x/held.jsonl", "/x/a.jsonl") == (own, "/x/held.jsonl")
    both, _ = datafiles.joined(own, "0", "/x/b.jsonl")
    assert [one["path"] for one in both] == ["/x/a.jsonl", "/x/b.jsonl"]


def test_a_long_row_is_shown_in_part() -> None:
    tokens = [{"text": "a", "id": 1, "trained": False, "special": False}] * (SHOWN + 5)
    preview = {"tokens": tokens, "rejected": [], "raw": {}, "messages": None, "rows": 3, "trained": 0, "context": 9}
    shown = row_value(preview, Meta(row=2, asked=5))
    assert (shown["index"], shown["source"], shown["asked"]) == (2, 0, 5)
    assert len(shown["tokens"]) == SHOWN and shown["more"] and shown["length"] == SHOWN + 5
    json.dumps(shown)


class FakeData:
    """A data worker that refuses the run but knows the files."""

    def call(self, op: str, **args: Any) -> dict[str, Any]:
        if op == "lengths":
            raise InputError("8 rows are longer than 160 tokens", where="data.max_length", fix="Raise it")
        lengths = {"over_limit": 8, "limit": 160, "longest": 196, "edges": [1, 2], "counts": [3]}
        known = {"kind": "answers", "format": "messages", "rows": 9, "file": "/x", "tokens": 5, "supervised_tokens": 2}
        return {**known, "lengths": lengths}


def test_long_rows_are_a_finding_with_buttons(page: Page) -> None:
    services = SimpleNamespace(data=FakeData(), settings=page.services.settings)
    asked = SimpleNamespace(form=page.form, services=services)
    shown, summary = datavalues.whole_count(page.form.config(page.form.start), asked, "demo")  # type: ignore[arg-type]
    assert summary == "demo · needs fixing"
    assert [action["set"] for action in shown["findings"][0]["actions"]] == [
        {"data.max_length": 196}, {"data.truncation": "drop"}, {"data.truncation": "cut"},
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


def test_choices_that_this_machine_lacks_say_so(form: Form) -> None:
    labels = {word: label for label, word in form.components["model.attention"].choices}
    assert labels["sdpa"] == "sdpa" and labels["flex_attention"] == "flex_attention (not on this machine)"
    assert "NVIDIA GPU" in form.lacks(form.specs["training.engine"])["unsloth"]
    assert form.lacks(form.specs["training.optimizer"]) == {}
