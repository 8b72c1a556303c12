"""What a preset set goes back with another method or tuning; what a person typed stays, and is marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.config.load import load_run
from studio.config.presets import load_named
from studio.errors import InputError
from studio.settings import Settings
from studio.ui.form.meta import Meta
from studio.ui.form.origin import known, origin_of, switched
from studio.ui.form.planline import Planner
from studio.ui.form.schema import METHOD, TRAIN, TUNING, Form, Values, field_id
from studio.ui.page import Page
from tests.ui.form.test_form import built

RATE, EPOCHS = "training.learning_rate", "training.epochs"
OWN = [{"path": "/somewhere/pairs.jsonl", "format": "auto"}]


@pytest.fixture(scope="module")
def page(session_settings: Settings) -> Page:
    """A page that tests only read: to build one takes more than a second."""
    return built(session_settings)


@pytest.fixture
def form(page: Page) -> Form:
    return page.form


def of_preset(form: Form, name: str) -> tuple[Values, Any]:
    values = form.raw(form.values(load_named(name)))
    return values, origin_of(form, values, name)


def change(form: Form, values: Values, origin: Any, **fields: Any) -> tuple[Values, Any]:
    values = {**values, **{path.replace("__", "."): value for path, value in fields.items()}}
    changes, origin = switched(form, values, origin)
    return {**values, **changes}, origin


def test_a_preset_on_own_rows_leaves_no_rate_behind(form: Form) -> None:
    values, origin = of_preset(form, "demo/sft")
    assert values[RATE] == "0.001"
    values, origin = change(form, {**values, TRAIN: OWN}, origin, method__name="dpo")
    assert (values[RATE], values[EPOCHS]) == ("auto", 2.0)
    assert values[TRAIN] == OWN and values["data.max_length"] == "auto", "rows are the person's own matter"
    again, _ = change(form, values, origin, method__name="sft")
    assert again[RATE] == "auto", "what went back does not return by itself"


def test_another_tuning_takes_the_rate_too_and_leaves_the_method(form: Form) -> None:
    values, origin = of_preset(form, "demo/sft")
    full, _ = change(form, values, origin, tuning__name="full")
    assert (full[RATE], full[EPOCHS], full[TRAIN]) == ("auto", 1.0, values[TRAIN])
    sums, origin = of_preset(form, "demo/grpo")
    dora, _ = change(form, sums, origin, tuning__name="dora")
    assert dora["method.rewards"] == sums["method.rewards"] and dora["training.max_steps"] == sums["training.max_steps"]


def test_typed_values_stay_and_are_marked(form: Form, page: Page) -> None:
    values, origin = of_preset(form, "demo/sft")
    typed = {**values, TRAIN: OWN, RATE: "0.0005", "training.seed": 7}
    now, origin = change(form, typed, origin, method__name="dpo")
    assert (now[RATE], now["training.seed"], now[EPOCHS]) == ("0.0005", 7, 2.0)
    assert set(origin["kept"]) == {RATE, "training.seed"}
    once_more, origin = change(form, now, origin, method__name="orpo", tuning__name="full")
    assert once_more[RATE] == "0.0005" and RATE in origin["kept"]
    shown = Planner(form, page.services).payload(once_more, Meta(), origin)
    assert field_id(RATE) in shown["kept"] and field_id(EPOCHS) not in shown["kept"]
    assert "auto" in shown["notes"][field_id(RATE)]
    cleared = Planner(form, page.services).payload({**once_more, RATE: "auto"}, Meta(), origin)
    assert field_id(RATE) not in cleared["kept"]


def test_what_went_back_says_what_it_was(form: Form, page: Page) -> None:
    values, origin = of_preset(form, "demo/sft")
    now, origin = change(form, {**values, TRAIN: OWN}, origin, method__name="dpo")
    note = Planner(form, page.services).payload(now, Meta(), origin)["notes"][field_id(RATE)]
    assert "0.001" in note and "SFT" in note and "demo/sft" in note


def test_a_demo_brings_the_settings_of_its_method(form: Form) -> None:
    values, origin = of_preset(form, "demo/sft")
    now, origin = change(form, {**values, "training.warmup": 0.2}, origin, method__name="grpo")
    demo = form.raw(form.values(load_named("demo/grpo")))
    assert {path for path, value in now.items() if value != demo[path]} == {"training.warmup"}
    back, _ = change(form, now, origin, method__name="sft")
    assert {path for path, value in back.items() if value != values[path]} == {"training.warmup"}
    full, origin = change(form, values, known(form, None), tuning__name="full")
    full, origin = change(form, full, origin, method__name="dpo")
    full, _ = change(form, full, origin, method__name="sft")
    assert full[RATE] == "auto", "the demo's rate is meant for its own tuning"


def test_loading_something_is_no_change_of_method(form: Form) -> None:
    values, origin = of_preset(form, "demo/sft")
    assert switched(form, values, origin) == ({}, origin)
    assert known(form, {"name": "broken"})["values"][METHOD] == form.start[METHOD]
    assert known(form, None)["values"][TUNING] == form.start[TUNING]


def test_a_preset_with_another_method_on_the_command_line() -> None:
    told: list[str] = []
    run = load_named("demo/sft", ["method.name=dpo"], told.append)
    assert (run.method.name, run.training.learning_rate) == ("dpo", "auto")
    assert run.data.train[0].path == "demo/pairs_train.jsonl" and "demo/dpo" in " ".join(told)
    told.clear()
    full = load_named("demo/sft", ["tuning.name=full"], told.append)
    assert (full.training.learning_rate, full.training.epochs) == ("auto", 1.0)
    assert "training.learning_rate (0.001)" in told[0]
    own = load_named("demo/sft", ["method.name=dpo", "training.learning_rate=2e-4", "data.train=[{path: a.jsonl}]"])
    assert (own.training.learning_rate, own.data.train[0].path, own.training.epochs) == (2e-4, "a.jsonl", 2.0)
    told.clear()
    assert load_named("demo/sft", ["method.name=sft", "training.seed=1"], told.append).training.learning_rate == 1e-3
    assert told == []
    with pytest.raises(InputError):
        load_named("demo/sft", ["method.name=nothing"])


def test_a_file_of_ones_own_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: {name: sft}\ntraining: {learning_rate: 1.0e-3}\ndata: {train: [{path: a.jsonl}]}\n")
    assert load_named(str(file), ["method.name=dpo"]) == load_run(file, ["method.name=dpo"])
    assert load_named(str(file), ["method.name=dpo"]).training.learning_rate == 1e-3
