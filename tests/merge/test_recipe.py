"""A recipe is read as mergekit reads it, and whatever is wrong with it is a sentence with a place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.merge.methods import METHODS
from studio.merge.recipe import read_recipe, write_recipe
from studio.merge.rules import require_sense

GOOD = """
merge_method: ties
base_model: base
models:
  - {model: one, parameters: {weight: 0.5, density: [0.2, 0.8]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: 0.1}, {value: 1}]}}
parameters: {normalize: true}
"""
SLICES = """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 2]}]
  - sources: [{model: two, layer_range: [1, 2], parameters: {scale: 0.5}}]
"""


@pytest.mark.parametrize("text", [GOOD, SLICES], ids=["models", "slices"])
def test_what_is_right_is_read_and_written_again(text: str) -> None:
    recipe = read_recipe(text)
    require_sense(recipe)
    again = read_recipe(write_recipe(recipe.renamed({})))
    assert again == recipe
    assert recipe.words == (["one", "two", "base"] if text is GOOD else ["one", "two"])


def test_models_get_other_names_wherever_they_are_named() -> None:
    text = GOOD + "tokenizer: {source: two, tokens: {'<x>': {source: {kind: model_token, model: one, token_id: 3}}}}\n"
    recipe = read_recipe(text)
    require_sense(recipe)
    values = recipe.renamed({"one": "parents/1", "two": "parents/2", "base": "parents/3"})
    assert [source["model"] for source in values["models"]] == ["parents/1", "parents/2"]
    assert values["base_model"] == "parents/3" and values["tokenizer"]["source"] == "parents/2"
    assert values["tokenizer"]["tokens"]["<x>"]["source"]["model"] == "parents/1"


def test_a_run_without_a_method_is_a_recipe() -> None:
    recipe = read_recipe("models: [{model: orders}]")
    require_sense(recipe)
    assert recipe.method.title == "Merge and unload" and recipe.words == ["orders"]


TWO = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
PLAIN = "models: [{model: a}, {model: b}]\n"
WRONG = {
    "no YAML": ("models: [", "not valid YAML"),
    "a list": ("- a", "not a recipe"),
    "an unknown key": (TWO + "merge_metod: ties", "Did you mean 'merge_method'?"),
    "an unknown key of a model": ("models: [{modl: a}]", "Did you mean 'model'?"),
    "an unknown method": (TWO + "merge_method: tis", "Did you mean ties?"),
    "no form": ("merge_method: linear", "exactly one of models, slices and modules"),
    "a model that is no text": ("models: [{model: {path: a}}]", "a model's name must be text"),
    "two without a method": (PLAIN, "exactly 1 model, and the recipe has 2"),
    "slices without a method": ("slices: [{sources: [{model: a, layer_range: [0, 1]}]}]", "needs a merge_method"),
    "no base": (TWO + "merge_method: ties", "ties needs a base model"),
    "a base that would be merged": (TWO + "merge_method: linear\nbase_model: c", "would be one more model"),
    "three for slerp": (
        TWO + "merge_method: slerp\nbase_model: c\nparameters: {t: 0.5}", "exactly 2 models, the base model included",
    ),
    "no t": (PLAIN + "merge_method: slerp\nbase_model: a", "slerp needs the parameter t"),
    "no weight": (PLAIN + "merge_method: linear", "linear needs the weight of 'a'"),
    "twice": ("merge_method: linear\nmodels: [{model: a}, {model: a}]\nparameters: {weight: 1}", "'a' is named twice"),
    "an unknown parameter": (TWO + "merge_method: linear\nparameters: {wieght: 1}", "Did you mean weight?"),
    "a parameter of another method": (
        TWO + "merge_method: linear\nparameters: {density: 0.5}", "linear has no parameter 'density'. It has weight",
    ),
    "a weight that is none": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: much}}]", "it must be a number (it is 'much')",
    ),
    "a density above 1": (
        TWO + "merge_method: ties\nbase_model: c\nparameters: {density: [0.5, 1.5]}", "it must be at most 1",
    ),
    "a flag that is none": (TWO + "merge_method: linear\nparameters: {normalize: 1}", "it must be true or false"),
    "weights that cancel out": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]",
        "add up to 0",
    ),
    "an empty slice": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [2, 2]}]}]", "[2, 2] holds no layers",
    ),
    "unequal slices": (
        "merge_method: linear\nparameters: {weight: 1}\nslices: [{sources: [{model: a, layer_range: [0, 2]}, "
        "{model: b, layer_range: [0, 1]}]}]",
        "different numbers of layers: 1 and 2",
    ),
    "a tokenizer from elsewhere": (TWO + "merge_method: linear\ntokenizer_source: c", "not one of the merged models"),
    "a tokenizer and a model of one name": (
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: b}]\ntokenizer_source: base",
        "'base' is a model of this recipe, and for a tokenizer the word says how it is made",
    ),
    "a model named like the usual tokenizer": (
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: union}, {model: b}]\n"
        "tokenizer: {pad_to_multiple_of: 8}",
        "Name the model 'union' by its id or its folder",
    ),
    "an unknown key of the tokenizer": (
        TWO + "merge_method: linear\ntokenizer: {source: a, pad_to_multiple: 8}", "Did you mean 'pad_to_multiple_of'?",
    ),
    "an unknown key of a token": (
        TWO + "merge_method: linear\ntokenizer: {tokens: {<x>: {sorce: a}}}", "Did you mean 'source'?",
    ),
    "what mergekit does not read": (
        "merge_method: passthrough\nslices: [{residual_weight: 0.5, sources: [{model: a, layer_range: [0, 1]}]}]",
        "a recipe has no 'residual_weight' there",
    ),
    "an unknown template": (TWO + "merge_method: linear\nchat_template: chatlm", "Did you mean chatml?"),
    "a model's own value of a shared parameter": (
        "merge_method: slerp\nbase_model: a\nparameters: {t: 1}\nmodels: [{model: a, parameters: {t: 0}}, {model: b}]",
        "slerp has one t for all models",
    ),
    "chances beyond 1": (
        TWO + "merge_method: della\nbase_model: c\nparameters: {density: 0.9}",
        "density 0.9 ± epsilon 0.15 of 'a' is no chance between 0 and 1",
    ),
    "a tokenizer of a merged adapter": ("models: [{model: a}]\nchat_template: chatml", "keeps the tokenizer"),
    "one adapter": ("merge_method: adapter_cat\nmodels: [{model: a}]\nparameters: {weight: 1}", "at least 2 models"),
    "pruning without a density": (TWO + "merge_method: adapter_ties", "adapter_ties needs the parameter density"),
    "a gradient for adapters": (
        "merge_method: adapter_cat\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [0, 1]}", "must be a number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_sentence(name: str) -> None:
    text, said = WRONG[name]
    with pytest.raises(InputError) as error:
        require_sense(read_recipe(text, "r.yaml"), "r.yaml")
    assert said in error.value.sentence and "r.yaml" in error.value.sentence


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        require_sense(read_recipe(PLAIN + "merge_method: ties\nbase_model: c\nparameters: {lamda: 1}"))
    assert error.value.sentence.count("\n") == 2


def test_a_bomb_is_refused() -> None:
    text = "a: &a [x, x]\n" + "".join(
        f"{two}: &{two} [*{one}, *{one}]\n" for one, two in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
    )
    with pytest.raises(InputError, match="more than"):
        read_recipe(text)


HOSTILE = {
    "an object of Python": "models: !!python/object/apply:os.system ['touch pwned']",
    "an object in a model": "models: [{model: !!python/object:os.system a}]",
    "10 MB": f"merge_method: linear # {10_000_000 * 'x'}",
    "depth": f"models: {2000 * '['}",
    "a number of a million digits": f"merge_method: linear\nparameters: {{weight: {1_000_000 * '1'}}}",
    "a list": "- models",
    "nothing": "",
    "a control character": "models: [{model: \x01}]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_recipe_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        read_recipe(HOSTILE[name], "r.yaml")
    assert "r.yaml" in error.value.sentence and len(error.value.sentence) < 500
    assert time.monotonic() - began < 5 and not (tmp_path / "pwned").exists()


def test_every_method_says_what_it_makes() -> None:
    assert all(one.title and one.makes and not one.makes.endswith(".") for one in METHODS.values())
    assert [one.name for one in METHODS.values() if one.usual] == [
        "linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties",
    ]  # fmt: skip
