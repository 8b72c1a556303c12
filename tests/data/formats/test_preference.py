"""Rows of pairs, ratings and prompts: each accepted shape, and each refusal with its sentence."""

from __future__ import annotations

from typing import Any

import pytest

from studio.data.formats.rows import READ, kind_of, parse_row
from studio.data.masks.masker import Masker
from studio.data.prepare.units import Rated, both_answers, encode
from studio.errors import InputError
from studio.methods import METHODS
from tests.data.rows import GPT_A, GPT_B, GPT_Q, A, B, Q, S, parse

# ---- pairs

PAIRS: list[tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]] = [
    # (row, messages with the better answer, with the worse one)
    ({"prompt": [Q], "chosen": [A], "rejected": [B]}, [Q, A], [Q, B]),
    ({"prompt": [S, Q], "chosen": [A], "rejected": [B]}, [S, Q, A], [S, Q, B]),
    ({"prompt": [Q], "chosen": A, "rejected": B}, [Q, A], [Q, B]),
    ({"prompt": [Q], "chosen": "a", "rejected": "b"}, [Q, A], [Q, B]),
    ({"prompt": "q", "chosen": [A], "rejected": [B]}, [Q, A], [Q, B]),
    ({"prompt": [Q, A, Q], "chosen": [A], "rejected": [B]}, [Q, A, Q, A], [Q, A, Q, B]),
    ({"prompt": [Q], "chosen": [A, Q, A], "rejected": [B]}, [Q, A, Q, A], [Q, B]),
    # Both whole conversations: the prompt is what they share, and `prompt` says it once more.
    ({"chosen": [Q, A], "rejected": [Q, B]}, [Q, A], [Q, B]),
    ({"chosen": [S, Q, A, Q, A], "rejected": [S, Q, A, Q, B]}, [S, Q, A, Q, A], [S, Q, A, Q, B]),
    ({"prompt": "q", "chosen": [Q, A], "rejected": [Q, B]}, [Q, A], [Q, B]),
    ({"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]}, [Q, A], [Q, B]),
    ({"prompt": " q\n", "chosen": [Q, A], "rejected": [Q, B]}, [Q, A], [Q, B]),
    ({"prompt": [Q], "chosen": [Q, A, Q, A], "rejected": [Q, A, Q, B]}, [Q, A, Q, A], [Q, A, Q, B]),
    ({"messages": [Q, A], "chosen": [Q, A, Q, A], "rejected": [Q, A, Q, B]}, [Q, A, Q, A], [Q, A, Q, B]),
    # A system prompt beside them is theirs, whichever of the two has it.
    ({"prompt": [S], "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"prompt": [S, Q], "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"messages": [S, Q], "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"prompt": [Q], "chosen": [S, Q, A], "rejected": [S, Q, B]}, [S, Q, A], [S, Q, B]),
    ({"system": "s", "prompt": "q", "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"system": "s", "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"system": " s ", "chosen": [S, Q, A], "rejected": [S, Q, B]}, [S, Q, A], [S, Q, B]),
    ({"system": "s", "instruction": "q", "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"prompt": "x", "system": "s", "chosen": [Q, A], "rejected": [Q, B]}, [S, Q, A], [S, Q, B]),
    ({"prompt": "q", "chosen": [S, A], "rejected": [S, B]}, [S, Q, A], [S, Q, B]),
    # Earlier turns come first, as in TRL, and the system prompt once.
    ({"prompt": [Q, A], "chosen": [{**Q, "content": "r"}, A], "rejected": [{**Q, "content": "r"}, B]},
     [Q, A, {**Q, "content": "r"}, A], [Q, A, {**Q, "content": "r"}, B]),
    ({"conversations": [S, Q, B], "chosen": [S, Q, Q, A], "rejected": [S, Q, Q, B]},
     [S, Q, B, Q, Q, A], [S, Q, B, Q, Q, B]),
    # alpaca
    ({"instruction": "q", "chosen": "a", "rejected": "b"}, [Q, A], [Q, B]),
    (
        {"instruction": "x", "input": "y", "system": "s", "history": [["q", "a"]], "chosen": "a", "rejected": "b"},
        [S, Q, A, {**Q, "content": "x\ny"}, A],
        [S, Q, A, {**Q, "content": "x\ny"}, B],
    ),
    # ShareGPT, and messages likewise
    ({"conversations": [GPT_Q], "chosen": GPT_A, "rejected": GPT_B}, [Q, A], [Q, B]),
    ({"conversations": [GPT_Q], "chosen": [GPT_A], "rejected": [GPT_B], "system": "s"}, [S, Q, A], [S, Q, B]),
    ({"messages": [Q], "chosen": A, "rejected": B}, [Q, A], [Q, B]),
    ({"messages": [S, Q], "chosen": "a", "rejected": "b"}, [S, Q, A], [S, Q, B]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "better", "worse"), PAIRS)
def test_shapes_of_a_pair(row: dict[str, Any], better: list[Any], worse: list[Any]) -> None:
    example = parse("pairs", row)
    assert example.format == "preference"
    assert example.messages == better
    assert example.rejected == worse
    shared = example.messages[: example.trained_from]
    assert shared == worse[: example.trained_from]
    assert better[example.trained_from]["role"] == worse[example.trained_from]["role"] == "assistant"
    assert [one.messages for one in both_answers(example)] == [better, worse]


def test_a_pair_of_texts_stays_text() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "source": "x"}
    example = parse("pairs", row)
    assert (example.prompt, example.completion, example.rejected, example.messages) == ("q", "a", "b", None)
    assert example.unused == ("source",)
    assert [one.completion for one in both_answers(example)] == ["a", "b"]


def test_a_conversation_beside_the_answers_is_not_mistaken_for_answers() -> None:
    row = {"messages": [Q], "chosen": A, "rejected": B, "score_chosen": 5, "id": 1}
    assert parse("pairs", row).unused == ("score_chosen", "id")


# As the Hub's sets have it: the better conversation once more in `messages`.
ULTRAFEEDBACK = {"prompt": "q", "chosen": [Q, A], "rejected": [Q, B], "messages": [Q, A], "score_chosen": 8.0}


def test_a_copy_of_the_better_answer_is_not_its_prompt() -> None:
    example = parse("pairs", ULTRAFEEDBACK)
    assert (example.messages, example.rejected, example.trained_from) == ([Q, A], [Q, B], 1)


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"prompt": "q", "chosen": [Q, A], "rejected": [Q, B]}, ()),
        ({"prompt": "", "chosen": [Q, A], "rejected": [Q, B]}, ()),
        ({"prompt": "Human: q", "chosen": [Q, A], "rejected": [Q, B]}, ("prompt",)),
        ({"prompt": ["q"], "chosen": [Q, A], "rejected": [Q, B]}, ("prompt",)),
        ({"instruction": "q", "input": "x", "system": "s", "chosen": [Q, A], "rejected": [Q, B]},
         ("instruction", "input")),
    ],
)  # fmt: skip
def test_a_prompt_that_was_not_read_is_named(row: dict[str, Any], unused: tuple[str, ...]) -> None:
    assert parse("pairs", row).unused == unused


REFUSED_PAIRS: list[tuple[dict[str, Any], list[str]]] = [
    ({"prompt": [Q], "chosen": [A], "rejected": [A]}, ["field 'rejected'", "chosen and rejected are identical"]),
    ({"prompt": "q", "chosen": "a", "rejected": "a"}, ["field 'rejected'", "chosen and rejected are identical"]),
    ({"chosen": [Q, A], "rejected": [{**Q, "content": "other"}, B]}, ["field 'chosen'", "same prompt", "in prompt"]),
    ({"chosen": [A], "rejected": [B]}, ["field 'chosen'", "the row has no prompt"]),
    ({"chosen": "a", "rejected": "b"}, ["field 'chosen'", "the row has no prompt"]),
    ({"prompt": "  ", "chosen": [A], "rejected": [B]}, ["the row has no prompt", "in prompt"]),
    ({"prompt": "q", "chosen": " ", "rejected": "b"}, ["field 'chosen'", "chosen is empty", "remove the row"]),
    ({"prompt": "q", "chosen": "a", "rejected": ""}, ["field 'rejected'", "rejected is empty"]),
    ({"prompt": [Q], "chosen": "a", "rejected": "\n"}, ["field 'rejected'", "rejected is empty"]),
    ({"prompt": [Q], "chosen": [{**A, "content": ""}], "rejected": [B]}, ["'chosen[0].content'", "answer is empty"]),
    ({"prompt": [Q], "chosen": [], "rejected": [B]}, ["field 'chosen'", "the list is empty"]),
    ({"prompt": [Q], "chosen": 5, "rejected": [B]}, ["field 'chosen'", "expected a list of messages, got a number"]),
    ({"prompt": [Q], "chosen": [Q], "rejected": [Q]}, ["field 'chosen'"]),
    ({"messages": [Q, A], "chosen": Q, "rejected": B}, ["field 'chosen'"]),
    ({"prompt": [{**Q, "content": "x"}], "chosen": [Q, A], "rejected": [Q, B]},
     ["field 'prompt'", "prompt is not how chosen and rejected begin", "Remove prompt"]),
    ({"prompt": [{**S, "content": "x"}, Q], "chosen": [S, Q, A], "rejected": [S, Q, B]},
     ["field 'prompt'", "chosen and rejected begin with another one", "Remove one of the two"]),
    ({"system": "x", "prompt": "q", "chosen": [S, Q, A], "rejected": [S, Q, B]}, ["field 'system'", "another one"]),
    ({"system": "x", "chosen": [S, Q, A], "rejected": [S, Q, B]}, ["field 'system'", "another one"]),
    ({"system": "s", "chosen": [A], "rejected": [B]}, ["field 'chosen'", "the row has no prompt"]),
    ({"prompt": [Q], "chosen": [A], "rejected": [Q, B]}, ["field 'chosen'", "same prompt"]),
    ({"prompt": [Q, A], "chosen": [S, A], "rejected": [S, B]}, ["field 'prompt'", "ends with an assistant message"]),
    (
        {"prompt": [Q], "chosen": [{**A, "role": "narrator"}], "rejected": [B]},
        ["'chosen[0].role'", "unknown role 'narrator'"],
    ),
    ({"prompt": [Q], "chosen": [A], "rejected": [B], "tools": [{}]}, ["field 'tools[0]'", "a function with a name"]),
    ({"conversations": [GPT_Q], "chosen": {"from": "alien", "value": "a"}, "rejected": GPT_B}, ["chosen[0].from"]),
    (
        {"prompt": [Q, A], "chosen": [A], "rejected": [B]},
        ["field 'prompt'", "the prompt ends with an assistant message"],
    ),
    (
        {"messages": [Q, A], "chosen": "a", "rejected": "b"},
        ["field 'messages'", "the prompt ends with an assistant message"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), REFUSED_PAIRS)
def test_refused_pairs(row: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse("pairs", row)
    for part in ["x.jsonl, row 1", *said]:
        assert part in str(caught.value)


# ---- rated answers

RATED: list[tuple[dict[str, Any], Any, bool]] = [
    # (row, messages or (prompt, completion), label)
    ({"prompt": [Q], "completion": [A], "label": True}, [Q, A], True),
    ({"prompt": [Q], "completion": [A], "label": False}, [Q, A], False),
    ({"prompt": "q", "completion": "a", "label": True}, ("q", "a"), True),
    ({"prompt": "q", "completion": "a", "label": 0}, ("q", "a"), False),
    ({"messages": [S, Q, A], "label": True}, [S, Q, A], True),
    ({"messages": [Q, A, Q, B], "kto_tag": False}, [Q, A, Q, B], False),
    ({"conversations": [GPT_Q, GPT_A], "kto_tag": True}, [Q, A], True),
    ({"instruction": "q", "output": "a", "label": False}, [Q, A], False),
]


@pytest.mark.parametrize(("row", "meaning", "label"), RATED)
def test_shapes_of_a_rated_answer(row: dict[str, Any], meaning: Any, label: bool) -> None:
    example = parse("rated", row)
    assert example.format == "rated"
    assert example.label is label
    if example.messages is None:
        assert (example.prompt, example.completion) == meaning
    else:
        assert example.messages == meaning
        assert example.trained_from == len(meaning) - 1, "the rating is of the last answer"


def test_what_follows_the_rated_answer_is_left_out() -> None:
    example = parse("rated", {"messages": [Q, A, Q], "label": True})
    assert example.messages == [Q, A]


def test_a_pair_is_two_rated_answers(tokenizer: Any) -> None:
    example = parse("rated", {"prompt": [Q], "chosen": [A], "rejected": [B]})
    good, bad = encode("rated", [example], Masker(tokenizer))
    assert isinstance(good, Rated) and isinstance(bad, Rated)
    assert (good.label, bad.label) == (True, False)
    assert good.prompt_ids == bad.prompt_ids
    assert good.completion_ids != bad.completion_ids


REFUSED_RATED: list[tuple[dict[str, Any], list[str]]] = [
    ({"prompt": "q", "completion": "a", "label": "good"}, ["field 'label'", "true or false, not 'good'", "Write true"]),
    ({"prompt": "q", "completion": "a", "label": None}, ["field 'label'", "not null"]),
    ({"prompt": "q", "completion": "a", "label": 0.5}, ["field 'label'", "not 0.5"]),
    ({"prompt": "q", "completion": "a", "kto_tag": "good"}, ["field 'kto_tag'", "not 'good'"]),
    ({"prompt": "q", "completion": "a", "label": [True]}, ["field 'label'", "not [True]"]),
    ({"prompt": "q", "label": True}, ["there is no answer for the label; keys are: prompt, label"]),
    ({"text": "q", "label": True}, ["there is no answer for the label"]),
    ({"prompt": "q", "completion": " ", "label": True}, ["field 'completion'", "empty"]),
    ({"messages": [Q], "label": True}, ["no assistant message"]),
    (
        {"prompt": "q", "completion": "a"},
        ["a labeled answer needs the key label (true or false)", "prompt, completion"],
    ),
]


@pytest.mark.parametrize(("row", "said"), REFUSED_RATED)
def test_refused_ratings(row: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse("rated", row)
    for part in ["x.jsonl, row 1", *said]:
        assert part in str(caught.value)


# ---- prompts

PROMPTS: list[tuple[dict[str, Any], Any, str | None, dict[str, Any]]] = [
    # (row, what is asked, what is right, the other keys)
    ({"prompt": [Q]}, [Q], None, {}),
    ({"prompt": "q"}, "q", None, {}),
    ({"prompt": [S, Q], "answer": "4"}, [S, Q], "4", {"answer": "4"}),
    ({"prompt": [Q], "answer": 4, "level": 2}, [Q], "4", {"answer": 4, "level": 2}),
    ({"prompt": [Q], "solution": "4"}, [Q], "4", {"solution": "4"}),
    ({"prompt": "q", "ground_truth": 0.5}, "q", "0.5", {"ground_truth": 0.5}),
    ({"prompt": "q", "reference": "r", "answer": None}, "q", "r", {"reference": "r", "answer": None}),
    ({"messages": [Q, A]}, [Q], "a", {}),
    ({"messages": [Q, A, Q], "answer": "x"}, [Q, A, Q], "x", {"answer": "x"}),
    ({"conversations": [GPT_Q, GPT_A], "id": 7}, [Q], "a", {"id": 7}),
    ({"prompt": "q", "completion": "a"}, "q", "a", {"prompt": "q", "completion": "a"}),
    ({"prompt": [Q], "completion": [A]}, [Q], "a", {"prompt": [Q], "completion": [A]}),
    ({"instruction": "q", "output": "a"}, [Q], "a", {"instruction": "q", "output": "a"}),
]


@pytest.mark.parametrize(("row", "asked", "right", "columns"), PROMPTS)
def test_shapes_of_a_prompt(row: dict[str, Any], asked: Any, right: str | None, columns: dict[str, Any]) -> None:
    example = parse("prompts", row)
    assert (example.messages if example.messages is not None else example.prompt) == asked
    assert example.answer == right
    assert example.columns == columns


REFUSED_PROMPTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"prompt": [Q, A]}, ["field 'prompt'", "the prompt ends with an assistant message", "End it with a user message"]),
    ({"prompt": " \n"}, ["field 'prompt'", "prompt is empty"]),
    ({"prompt": []}, ["field 'prompt'", "the list is empty"]),
    ({"prompt": 5}, ["field 'prompt'", "expected a string, got a number: 5"]),
    ({"prompt": "", "completion": "a"}, ["field 'prompt'", "prompt is empty"]),
    ({"prompt": [Q], "answer": {"a": 1}}, ["field 'answer'", "got an object"]),
    ({"prompt": [Q], "answer": True}, ["field 'answer'", "got true"]),
    ({"messages": [A]}, ["no prompt with an expected answer"]),
    ({"question": "q"}, ["the model generates the completions itself, so a row needs a prompt; keys are: question"]),
]


@pytest.mark.parametrize(("row", "said"), REFUSED_PROMPTS)
def test_refused_prompts(row: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse("prompts", row)
    for part in ["x.jsonl", "row 1", *said]:
        assert part in str(caught.value)


# ---- which kind, and rows of another


def test_missing_keys_say_what_a_method_needs() -> None:
    for kind, needed in (
        ("pairs", "a pair needs the keys chosen and rejected; keys are: text"),
        ("rated", "a labeled answer needs the key label (true or false); keys are: text"),
        ("prompts", "so a row needs a prompt; keys are: text"),
    ):
        with pytest.raises(InputError, match=r"x\.jsonl, row 1") as caught:
            parse(kind, {"text": "x"})  # type: ignore[arg-type]
        assert needed in str(caught.value)
    with pytest.raises(InputError, match="key 'rejected' is missing; keys are: prompt, chosen"):
        parse_row({"prompt": "q", "chosen": "a"}, 1, "x.jsonl", "preference", "pairs")
    with pytest.raises(InputError, match="key 'label' is missing"):
        parse_row({"prompt": "q", "completion": "a"}, 1, "x.jsonl", "rated", "rated")


def test_pairs_are_not_read_by_sft() -> None:
    with pytest.raises(InputError, match=r"These are preference pairs: set method\.name to dpo, .* or reward"):
        parse("answers", {"prompt": "q", "chosen": "a", "rejected": "b"})
    with pytest.raises(InputError, match="These are preference pairs"):
        parse("answers", {"messages": [Q, A], "chosen": [A], "rejected": [B]})
    parse("answers", {"messages": [Q, A], "chosen": None, "rejected": []})
    with pytest.raises(InputError, match="this method cannot train on rows of format preference"):
        parse_row({"prompt": "q", "chosen": "a", "rejected": "b"}, 1, "x.jsonl", "preference")
    with pytest.raises(InputError, match="this method cannot train on rows of format messages"):
        parse_row({"messages": [Q, A]}, 1, "x.jsonl", "messages", "pairs")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "pairs"),
        ({"prompt": "q", "completion": "a", "label": True}, "rated"),
        ({"prompt": "q", "completion": "a"}, "answers"),
        ({"prompt": "q", "answer": "a"}, "prompts"),
        ({"nothing": 1}, "answers"),
    ],
)
def test_the_kind_of_a_file(row: dict[str, Any], kind: str) -> None:
    assert kind_of(row) == kind


def test_every_method_reads_something() -> None:
    assert {one.rows for one in METHODS.values()} == set(READ)
