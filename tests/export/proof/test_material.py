"""What is compared: shapes, prompts, and texts whose common beginnings count once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.export.proof.material import (
    BUILT_IN_TEXTS,
    FEWEST_POSITIONS,
    POSITIONS,
    RARE,
    SHAPES,
    TABLE_BYTES,
    TEXT_TOKENS,
    compared_prompts,
    compared_texts,
    ids_of,
    spread,
)


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


def test_a_common_beginning_is_compared_once() -> None:
    rows = [([1, 2, 3, 4], [-100, -100, 3, 4]), ([1, 2, 3, 9, 9], [-100] * 3 + [9, 9]), ([1, 2], [-100, 2])]
    texts = compared_texts(rows, [], 100)
    assert [(text.ids, text.first, text.supervised) for text in texts] == [
        ([1, 2, 3, 4], 0, [False, True, True, False]),
        ([1, 2, 3, 9, 9], 3, [True, False]),
    ]


def test_texts_and_table_are_bounded() -> None:
    rows = [([100 * i + j for j in range(400)], [-100] * 400) for i in range(20)]
    texts = compared_texts(rows, [], 100)
    assert max(len(text.ids) for text in texts) == TEXT_TOKENS
    assert sum(len(text.supervised) for text in texts) == POSITIONS
    vocabulary = 1_000_000
    assert sum(len(text.supervised) for text in compared_texts(rows, [], vocabulary)) * 4 * vocabulary <= TABLE_BYTES


def test_built_in_texts_fill_up_what_little_data_leaves(tokenizer: Any) -> None:
    built_in = [ids_of(tokenizer, text) for text in BUILT_IN_TEXTS]
    texts = compared_texts([([5, 6, 7], [5, 6, 7])], built_in, 49152)
    assert texts[0].ids == [5, 6, 7]
    assert sum(len(text.supervised) for text in texts) >= FEWEST_POSITIONS


def test_all_shapes_render_for_the_embedded_model(tokenizer: Any) -> None:
    prompts = compared_prompts(tokenizer, [(3, [{"role": "user", "content": "hi"}]), (4, "plain")])
    assert len(SHAPES) >= 8
    assert [prompt.name for prompt in prompts] == [*SHAPES, *RARE, "row 3", "row 4"]
    assert {prompt.name for prompt in prompts if prompt.rare} == set(RARE)
    assert prompts[-1].messages is None
    assert prompts[-1].ids == ids_of(tokenizer, "plain")


def test_a_shape_that_the_template_refuses_is_left_out_and_a_row_is_not(model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    )
    names = [prompt.name for prompt in compared_prompts(tokenizer, [])]
    assert "no system" in names
    assert "system" not in names
    with pytest.raises(Exception, match="no system role"):
        compared_prompts(tokenizer, [(1, [{"role": "system", "content": "s"}])])


def test_a_model_without_a_template_is_asked_plain_text(model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    tokenizer.chat_template = None
    assert all(prompt.messages is None and prompt.ids for prompt in compared_prompts(tokenizer, []))


def test_spread_is_even_and_begins_at_the_first() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
