"""The Merge section without a browser: what it offers, writes, checks and submits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from studio.errors import InputError
from studio.jobs import Summaries
from studio.merge import sweep
from studio.merge.methods import METHODS, UNLOAD
from studio.merge.recipe import read_recipe
from studio.merge.rules import require_sense
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from studio.reach import reading_for
from studio.settings import Settings
from studio.ui.page import build_page
from studio.ui.server.services import Services
from studio.ui.tabs.export import merge
from studio.ui.tabs.export.merge import MergeCard
from studio.ui.tabs.export.mergemethods import NOT_HERE, choices, why_not
from studio.ui.tabs.export.mergesweep import offered
from tests.merge.made import SIZES, put_run

CHOSEN = {"usual": ["a", "b"], "slerp": ["a"], "more": ["a", "b", "c"]}


@pytest.fixture
def card(settings: Settings) -> MergeCard:
    chats: Any = SimpleNamespace(loaded=lambda: [])
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=chats)  # type: ignore[arg-type]
    with gr.Blocks():
        return MergeCard(build_page(services))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []

    def submit(settings: Settings, kind: str, name: str, config: dict[str, Any], group: str = "") -> Any:
        jobs.append({**config, "kind": kind, "name": name, "group": group})
        return SimpleNamespace(id="the-id")

    monkeypatch.setattr(merge, "submit", submit)
    monkeypatch.setattr(sweep, "submit", submit)
    return jobs


@pytest.fixture(scope="module")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(seed: int, **sizes: Any) -> Path:
        folder = tmp_path_factory.mktemp("tiny") / "model"
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**(SIZES | sizes))).save_pretrained(folder)
        copy_tokenizer(model_path, folder)
        return folder

    return make


def test_runs_and_base_models_are_offered(card: MergeCard, settings: Settings, tiny: Callable[..., Path]) -> None:
    put_run(settings, "orders", tiny(1), tiny(1))
    assert card.offered() == [("orders · run", "orders"), ("smollm2-135m-instruct · model", "smollm2-135m-instruct")]
    models, base, rows = card.refresh("")
    assert models.choices == base.choices == card.offered() and ("No rows", "") in rows.choices


def test_the_usual_methods_come_first_and_all_on_demand() -> None:
    few, many = choices(False), choices(True)
    assert [name for _, name in few][:2] == ["linear", "slerp"] and len(few) == 9
    assert {name for _, name in many} == {*METHODS, ""}


@pytest.mark.parametrize("name", METHODS)
def test_what_the_fields_write_makes_sense(name: str, card: MergeCard) -> None:
    method = METHODS[name]
    models = CHOSEN["slerp" if method.most in (1, 2) else "usual"]
    number = "0.5" if any(one.required and one.name in ("t", "density") for one in method.parameters) else ""
    text, said = card.write(models, name, "base", "", number)
    recipe = read_recipe(text)
    require_sense(recipe)
    assert recipe.merge_method == name and said == ""
    assert recipe.words == [*models, *(["base"] if method.base != "none" else [])]


def test_weights_are_read_and_wrong_ones_told(card: MergeCard) -> None:
    text, _ = card.write(["a", "b"], "ties", "c", "0.25, 0.75", "0.5")
    recipe = read_recipe(text)
    assert [source.parameters for source in recipe.models or []] == [{"weight": 0.25}, {"weight": 0.75}]
    assert recipe.parameters == {"density": 0.5}
    # At each key of "1, much": said below the recipe, which stays, and no error of the whole page.
    for weights, wrong in (("1", "1 weight is given for 2 models"), ("1, much", "Weights: 'much' is not a number")):
        kept, said = card.write(["a", "b"], "ties", "c", weights, "")
        assert wrong in said and kept == gr.skip()
    assert "3 weights are given for 2 models" in card.write(["a", "b"], "ties", "c", "1, 2, 3", "")[1]
    assert card.write(["a", "b"], "ties", "c", "1, 2", "")[1] == ""
    assert card.write([], "linear", None, "", "") == ["", ""]


def test_a_method_shows_what_it_asks_for(card: MergeCard) -> None:
    shown = {name: card.choose(name) for name in ("linear", "slerp", "ties", "")}
    visible = {name: [part.visible for part in parts[1:]] for name, parts in shown.items()}
    assert visible == {
        "linear": [False, True, False], "slerp": [True, False, True], "ties": [True, True, True],
        "": [False, False, False],
    }  # fmt: skip
    assert shown["slerp"][3].label == "T" and "0 is the base model" in shown["slerp"][3].info


def test_it_is_checked_and_submitted(
    card: MergeCard, settings: Settings, tiny: Callable[..., Path], submitted: list[dict[str, Any]]
) -> None:
    one, other = put_run(settings, "one", tiny(1), tiny(1)), put_run(settings, "two", tiny(2), tiny(2))
    text, _ = card.write(["one", "two"], "linear", "", "", "")
    assert card.look(text).startswith("Linear: this can be merged. It takes about")
    said, job = card.submit("", text, "demo/test.jsonl")
    assert job == "the-id" and said.startswith("'merged' is queued")
    asked = submitted[0]
    assert (asked["kind"], asked["name"], asked["evaluate"]) == ("merge", "merged", "demo/test.jsonl")
    assert asked["parents"] == {"one": one.id, "two": other.id} and asked["recipe"] == text


def test_what_cannot_be_merged_is_a_sentence(
    card: MergeCard, settings: Settings, tiny: Callable[..., Path], submitted: list[dict[str, Any]], tmp_path: Path
) -> None:
    put_run(settings, "one", tiny(1), tiny(1))
    put_run(settings, "wide", tiny(2, hidden_size=48), tiny(1))
    text, _ = card.write(["one", "wide"], "linear", "", "", "")
    with pytest.raises(InputError, match="different hidden size: 32 in 'one', 48 in 'wide'"):
        card.submit("", text)
    with pytest.raises(InputError, match="there is no recipe"):
        card.submit("", " ")
    assert "different hidden size: 32 in 'one', 48 in 'wide'" in card.look(text)
    outside = tiny(3)
    with reading_for(settings):
        assert "may not read" in card.look(f"models: [{{model: {outside}}}]")
    assert submitted == []


def test_a_sweep_is_checked_and_submitted(
    card: MergeCard, settings: Settings, tiny: Callable[..., Path], submitted: list[dict[str, Any]]
) -> None:
    for seed, name in enumerate(("one", "two")):
        put_run(settings, name, tiny(seed), tiny(seed))
    text, _ = card.write(["one", "two"], "linear", "", "", "")
    fields = offered(text, "")
    place = "models.1.parameters.weight"
    assert fields.choices == [
        ("One merge, no sweep", ""), ("weight of one", "models.0.parameters.weight"), ("weight of two", place),
    ]  # fmt: skip
    assert offered(text, place).value == place and offered("merge_method: tis", place).value is None
    rows = "demo/test.jsonl"
    said = card.look(text, rows, place, "0", "1", "3")
    assert said.startswith("Linear, 3 merges with weight of two = 0, 0.5, 1. The children take")
    assert "compares its children on rows" in card.look(text, "", place, "0", "1", "3")
    said, _ = card.submit("mix", text, rows, place, "0", "1", "3")
    assert said == "3 merges are queued: their curve grows below."
    assert [(one["name"], one["varied"], one["compare"]) for one in submitted] == [
        ("mix-0", {place: 0.0}, True), ("mix-0.5", {place: 0.5}, False), ("mix-1", {place: 1.0}, False),
    ]  # fmt: skip
    assert len({one["group"] for one in submitted}) == 1 and submitted[0]["group"].startswith("mix-sweep-")


def test_rows_without_answers_are_refused_at_the_check(
    card: MergeCard, settings: Settings, tiny: Callable[..., Path]
) -> None:
    put_run(settings, "one", tiny(1), tiny(1))
    settings.uploads.mkdir(parents=True)
    file = settings.uploads / "prompts.jsonl"
    file.write_text('{"question_only": "Hi"}\n')
    assert "prompts.jsonl" in card.look("models: [{model: one}]", str(file))
    pairs = settings.uploads / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}\n')
    assert card.look("models: [{model: one}]", str(pairs)).startswith("Merge and unload: this can be merged.")


METHODS_OF = {
    "three for slerp": ("slerp", 3, "it takes 2 models"), "two for slerp": ("slerp", 2, ""),
    "one and a base": ("slerp", 1, ""), "one for stock": ("model_stock", 1, "it takes 2 models or more"),
    "two for stock": ("model_stock", 2, ""), "four for nuslerp": ("nuslerp", 4, "it takes 3 models"),
    "one for nuslerp": ("nuslerp", 1, "it takes 2 models or more"), "many for linear": ("linear", 9, ""),
    "two to unload": ("", 2, "it takes 1 model"), "one adapter": ("adapter_cat", 1, "it takes 2 models or more"),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS_OF)
def test_a_method_says_why_it_is_none_for_the_chosen_models(name: str) -> None:
    method, count, said = METHODS_OF[name]
    assert (
        why_not(METHODS[method] if method else UNLOAD, ["a", "b", "c", "d", "e", "f", "g", "h", "i"][:count], [])
        == said
    )


def test_methods_of_adapters_are_none_for_whole_models(
    card: MergeCard, settings: Settings, tiny: Callable[..., Path]
) -> None:
    put_run(settings, "one", tiny(1), tiny(1))
    labels = {name: label for label, name in card.offer(True, ["one", "gone"]).choices}
    assert labels["adapter_cat"] == f"Adapters, concatenated{NOT_HERE}one has no adapter"
    assert labels["linear"] == "Linear" and {*labels} == {*METHODS, ""}
