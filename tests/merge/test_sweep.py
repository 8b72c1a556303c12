"""A sweep over one value: a recipe for each value, and what is wrong with it told before anything is queued."""

from __future__ import annotations

import pytest

from studio.errors import InputError
from studio.merge.recipe import read_recipe
from studio.merge.sweep import variants

TEXT = """
merge_method: ties
base_model: c
models:
  - {model: a, parameters: {weight: 0.5}}
  - {model: b, parameters: {weight: 0.5}}
"""


def test_each_value_has_its_recipe() -> None:
    found = variants(TEXT, "models.1.parameters.weight=0.2, 0.8", "r.yaml")
    assert [value for value, _ in found] == [0.2, 0.8]
    for value, text in found:
        recipe = read_recipe(text)
        assert [one.parameters["weight"] for one in recipe.models or []] == [0.5, value]
        assert recipe.base_model == "c" and recipe.merge_method == "ties"


def test_a_parameter_that_was_not_given_is_added() -> None:
    (_, first), _ = variants(
        TEXT.rstrip() + "\nparameters: {normalize: true}\n", "parameters.density=0.1,0.9", "r.yaml"
    )
    assert read_recipe(first).parameters == {"normalize": True, "density": 0.1}


WRONG = {
    "no values": ("models.1.parameters.weight", "is not PLACE=VALUES"),
    "one value": ("models.1.parameters.weight=0.5", "is not a list of 2 to 20 different numbers"),
    "a word": ("models.1.parameters.weight=0.5,much", "is not a list of 2 to 20 different numbers"),
    "another model": ("models.2.parameters.weight=0.1,0.2", "the recipe has no '2' in 'models'. There are 0, 1"),
    "a wrong name": ("model.1.parameters.weight=0.1,0.2", "Did you mean 'models'?"),
    "below a value": ("base_model.weight=0.1,0.2", "'base_model' holds a value and no places"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_sentence(name: str) -> None:
    item, said = WRONG[name]
    with pytest.raises(InputError) as error:
        variants(TEXT, item, "r.yaml")
    assert said in error.value.sentence and "--sweep" in error.value.sentence
