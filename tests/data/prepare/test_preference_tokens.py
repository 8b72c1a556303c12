"""Pairs, ratings and prompts as tokens: of the template, cut to a length, and through the data of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as law
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.load import build
from studio.data.masks.masker import Masker
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.prepare.units import Encoded, Pair, Prompt, Rated, common_prefix, encode
from studio.errors import InputError, InputErrors
from studio.settings import Settings
from tests.data.rows import A, B, Q, parse

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def test_the_tokens_of_a_pair_are_those_of_the_template(tokenizer: Any) -> None:
    row = {"prompt": [{**Q, "content": "How far?"}], "chosen": "It is 3 km.", "rejected": "It is 2 miles."}
    (unit,) = encode("pairs", [parse("pairs", row)], Masker(tokenizer))
    assert isinstance(unit, Pair)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    start = f"{SYSTEM}<|im_start|>user\nHow far?<|im_end|>\n<|im_start|>assistant\n"
    assert unit.prompt_ids == ids(start)
    assert unit.prompt_ids + unit.chosen_ids == ids(f"{start}It is 3 km.<|im_end|>")
    assert unit.prompt_ids + unit.rejected_ids == ids(f"{start}It is 2 miles.<|im_end|>")
    assert unit.chosen_ids[-1] == unit.rejected_ids[-1] == tokenizer.eos_token_id
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert unit.prompt_ids == prompt, "as the model meets it when it answers"
    assert unit.length == len(prompt) + max(len(unit.chosen_ids), len(unit.rejected_ids))
    assert unit.tokens == 2 * len(prompt) + len(unit.chosen_ids) + len(unit.rejected_ids)
    assert unit.supervised == len(unit.chosen_ids) + len(unit.rejected_ids)


def test_what_repeats_in_a_row_and_what_all_rows_begin_with() -> None:
    ids = [([1, 2, 3], [4, 5], [4, 6, 7]), ([1, 2, 8, 9], [3], [4]), ([1, 2], [5], [6])]
    pairs = [Pair(*one, row, "") for row, one in enumerate(ids, 1)]
    assert [one.repeats for one in pairs] == [4, 4, 2], "the prompt, and the first token of answers that begin alike"
    assert common_prefix(pairs) == 2
    assert common_prefix(pairs[:1]) == 3, "within the prompt"
    answers = [Encoded([7, 7, end, 1], [-100, -100, end, 1], 1, "") for end in (3, -1, 5)]
    assert common_prefix(answers) == 2 and {one.repeats for one in answers} == {0}
    assert common_prefix([*answers, Encoded([1, 2], [-100, 2], 1, "")]) == 0
    assert common_prefix([*answers[:1], Encoded([7, 7], [-100, 7], 1, "")]) == 2, "one row may begin the other"


def test_the_tokens_of_a_pair_of_texts_have_no_template(tokenizer: Any) -> None:
    (unit,) = encode(
        "pairs", [parse("pairs", {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"})], Masker(tokenizer)
    )
    assert isinstance(unit, Pair)
    assert tokenizer.decode(unit.prompt_ids) == "2 + 2 ="
    assert tokenizer.decode(unit.chosen_ids) == " 4<|im_end|>"
    assert tokenizer.decode(unit.rejected_ids) == " 5<|im_end|>"


def test_only_the_last_turn_differs_in_a_conversation_of_several(tokenizer: Any) -> None:
    row = {"chosen": [Q, A, {**Q, "content": "r"}, A], "rejected": [Q, A, {**Q, "content": "r"}, B]}
    (unit,) = encode("pairs", [parse("pairs", row)], Masker(tokenizer))
    assert isinstance(unit, Pair)
    assert tokenizer.decode(unit.prompt_ids).endswith("user\nr<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(unit.chosen_ids) == "a<|im_end|>"


def test_answers_that_become_the_same_tokens_are_refused(tokenizer: Any, write: Callable[..., Path]) -> None:
    tokenizer.backend_tokenizer.normalizer, before = _lowercase(), tokenizer.backend_tokenizer.normalizer
    try:
        with pytest.raises(InputError, match=r"x\.jsonl, row 1.*the two answers have identical tokens"):
            encode("pairs", [parse("pairs", {"prompt": "q", "chosen": "Yes", "rejected": "yes"})], Masker(tokenizer))
    finally:
        tokenizer.backend_tokenizer.normalizer = before


def _lowercase() -> Any:
    from tokenizers import normalizers

    return normalizers.Lowercase()


def test_the_tokens_of_a_prompt_end_where_the_answer_begins(tokenizer: Any) -> None:
    row = {"prompt": [Q], "answer": "4", "level": 2}
    (unit,) = encode("prompts", [parse("prompts", row)], Masker(tokenizer))
    assert isinstance(unit, Prompt)
    assert tokenizer.decode(unit.prompt_ids) == f"{SYSTEM}<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert (unit.prompt, unit.answer, unit.columns) == ([Q], "4", {"answer": "4", "level": 2})
    assert (unit.length, unit.supervised) == (len(unit.prompt_ids), 0)


# ---- cuts

IDS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@law(max_examples=200, deadline=None)
@given(prompt=IDS, chosen=IDS, rejected=IDS, limit=st.integers(1, 20))
def test_a_cut_pair_is_within_the_limit_and_still_a_pair(
    prompt: list[int], chosen: list[int], rejected: list[int], limit: int
) -> None:
    cut = Pair(prompt, chosen, rejected, 1, "x").cut(limit)
    if cut is None:
        left = max(0, limit - len(prompt))
        assert chosen[:left] == rejected[:left], "no token is left that differs"
        return
    assert cut.length <= limit
    assert cut.prompt_ids == prompt
    assert chosen[: len(cut.chosen_ids)] == cut.chosen_ids
    assert rejected[: len(cut.rejected_ids)] == cut.rejected_ids
    assert cut.chosen_ids != cut.rejected_ids
    assert cut.chosen_ids and cut.rejected_ids


@law(max_examples=100, deadline=None)
@given(prompt=IDS, answer=IDS, label=st.booleans(), limit=st.integers(1, 20))
def test_a_cut_rating_keeps_its_prompt(prompt: list[int], answer: list[int], label: bool, limit: int) -> None:
    cut = Rated(prompt, answer, label, 1, "x").cut(limit)
    if limit <= len(prompt):
        assert cut is None
    else:
        assert cut is not None
        assert cut.completion_ids == answer[: limit - len(prompt)]
        assert (cut.length <= limit, cut.prompt_ids, cut.label) == (True, prompt, label)


def test_a_prompt_is_never_cut() -> None:
    assert Prompt([1, 2, 3], "q", None, 1, "x").cut(2) is None


# ---- through a run's data


def prepared(
    method: str, tokenizer: Any, settings: Settings, file: Path, **data: Any
) -> Prepared:  # fmt: skip
    config = build(
        RunConfig, {"data": {"train": [{"path": str(file)}], "validation": 0, **data}, "method": {"name": method}}
    )
    return prepare_data(config.data, config.method, tokenizer, settings)


def test_a_file_of_pairs_is_cut_dropped_or_refused(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    rows = [
        {"prompt": [Q], "chosen": "yes", "rejected": "no"},
        {"prompt": [Q], "chosen": "yes " * 30, "rejected": "no " * 30},
        {"prompt": [Q], "chosen": "yes " * 30 + "a", "rejected": "yes " * 30 + "b"},
    ]
    file = write("pairs.jsonl", rows)
    whole = prepared("dpo", tokenizer, settings, file)
    assert (whole.kind, len(whole.train)) == ("pairs", 3)
    limit = whole.train[0].length + 5
    with pytest.raises(InputError, match=r"2 of 3 rows are longer than .* pairs\.jsonl, row 2"):
        prepared("dpo", tokenizer, settings, file, max_length=limit)
    dropped = prepared("dpo", tokenizer, settings, file, max_length=limit, truncation="drop")
    assert (len(dropped.train), dropped.report.sources[0].dropped) == (1, 2)
    cut = prepared("dpo", tokenizer, settings, file, max_length=limit, truncation="cut")
    source = cut.report.sources[0]
    assert (len(cut.train), source.cut, source.dropped_unsupervised) == (2, 1, 1), "the third is equal where it is cut"
    assert max(row.length for row in cut.train) == limit
    assert source.tokens == sum(row.tokens for row in cut.train)


def test_five_bad_rows_are_named_at_once(tokenizer: Any, settings: Settings, write: Callable[..., Path]) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    file = write("pairs.jsonl", [good, *({**good, "rejected": "a"} for _ in range(7))])
    with pytest.raises(InputErrors) as caught:
        prepared("orpo", tokenizer, settings, file)
    assert len(caught.value.errors) == 6
    assert "2 more rows cannot be used" in str(caught.value)


@pytest.mark.parametrize("method", ["dpo", "orpo", "reward", "kto"])
def test_the_demo_of_pairs_is_read_by_every_method_of_them(tokenizer: Any, settings: Settings, method: str) -> None:
    config = build(
        RunConfig,
        {"data": {"train": [{"path": "demo/pairs_train.jsonl"}], "validation": 0}, "method": {"name": method}},
    )
    read = prepare_data(config.data, config.method, tokenizer, settings)
    rows = read.report.sources[0].rows
    assert len(read.train) == rows * (2 if method == "kto" else 1)
    if method == "kto":
        assert sum(row.label for row in read.train) == rows
