"""A child with another tokenizer than its first model ends, begins and pads where that tokenizer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.merge.child import complete
from studio.merge.recipe import read_recipe
from studio.merge.specials import Specials
from studio.models.inspect.tokenizerfiles import CONFIG

OF_FIRST = {"<pad>": 0, "<start>": 1, "<end>": 2, "<tool>": 3, "a": 4}
OF_CHILD = {"a": 0, "b": 1, "c": 2, "<pad>": 3, "<start>": 4, "<end>": 5, "<stop>": 6}
RECIPE = "merge_method: linear\nmodels: [{model: x, parameters: {weight: 1}}, {model: y, parameters: {weight: 1}}]\n"


def put(folder: Path, tokens: dict[str, int] | None, eos: Any = None, **files: Any) -> Path:
    folder.mkdir()
    if tokens is not None:
        added = [{"content": text, "id": number} for text, number in tokens.items() if text.startswith("<")]
        vocabulary = {text: number for text, number in tokens.items() if not text.startswith("<")}
        state = {"model": {"vocab": vocabulary}, "added_tokens": added}
        (folder / "tokenizer.json").write_text(json.dumps(state))
    (folder / CONFIG).write_text(json.dumps({"eos_token": eos} if eos else {}))
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1, "vocab_size": 5},
         {"eos_token_id": 5, "pad_token_id": 3, "bos_token_id": 4, "vocab_size": 5}),
        ({"eos_token_id": [2, 3], "pad_token_id": 3}, {"eos_token_id": [5], "pad_token_id": None}),
        ({"eos_token_id": 3}, {"eos_token_id": 6}),
        ({"eos_token_id": [3]}, {"eos_token_id": 6}),
        ({"eos_token_id": 99, "bos_token_id": None}, {"eos_token_id": 6, "bos_token_id": None}),
        ({}, {"eos_token_id": 6}),
        ({"eos_token_id": 4}, {"eos_token_id": 0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("eos", ["<stop>", {"content": "<stop>"}])
def test_an_id_is_that_of_the_same_token(tmp_path: Path, given: Any, wanted: Any, eos: Any) -> None:
    first, child = put(tmp_path / "first", OF_FIRST), put(tmp_path / "child", OF_CHILD, eos)
    assert Specials(first, child).carried(given) == wanted


def test_without_texts_the_childs_own_tokens_count(tmp_path: Path) -> None:
    """A tokenizer of SentencePiece alone has no file in which an id's text could be looked up."""
    first, child = put(tmp_path / "first", None), put(tmp_path / "child", OF_CHILD, "<stop>")
    found = Specials(first, child).carried({"eos_token_id": 2, "pad_token_id": 0})
    assert found == {"eos_token_id": 6, "pad_token_id": None}


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_was_merged_is_read(tmp_path: Path, tied: bool) -> None:
    first = put(tmp_path / "first", OF_FIRST, config={"tie_word_embeddings": True})
    child = put(tmp_path / "child", OF_CHILD, config={})
    complete(child, first, read_recipe(RECIPE), "float32", tied)
    assert json.loads((child / "config.json").read_text())["tie_word_embeddings"] is tied


@pytest.mark.parametrize(("own", "end"), [(True, 5), (False, 2)])
def test_both_configs_of_a_child_have_its_ids(tmp_path: Path, own: bool, end: int) -> None:
    ids = {"eos_token_id": 2, "bos_token_id": 1}
    first = put(tmp_path / "first", OF_FIRST, config=ids | {"vocab_size": 5}, generation_config=ids)
    child = put(tmp_path / "child", OF_CHILD, config={"vocab_size": 7})
    recipe = read_recipe(RECIPE + ("tokenizer: {source: y}\n" if own else ""))
    complete(child, first, recipe, "float32")
    config, generation = (
        json.loads((child / name).read_text()) for name in ("config.json", "generation_config.json")
    )  # fmt: skip
    assert config["eos_token_id"] == generation["eos_token_id"] == end
    assert config["bos_token_id"] == generation["bos_token_id"] == end - 1
    assert config["vocab_size"] == (7 if own else 5)
