"""Formats: each accepted shape, and each refusal with its row and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.data.formats import FORMATS, FormatName, split_prompt
from studio.data.rows import detect_format, parse_row
from studio.errors import InputError

from .rows import chat

Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
S = {"role": "system", "content": "s"}
ACCEPTED: list[tuple[FormatName, dict[str, Any], Any]] = [
    ("messages", {"messages": [S, Q, A]}, [S, Q, A]),
    ("messages", {"messages": [Q, A], "system": "s"}, [S, Q, A]),
    ("messages", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [Q, A]),
    ("messages", {"conversations": [Q, A]}, [Q, A]),
    ("messages", {"messages": [{**Q, "content": [{"type": "text", "text": "q"}]}, {**A, "tool_calls": None}]}, [Q, A]),
    ("prompt_completion", {"prompt": [Q], "completion": [A]}, [Q, A]),
    ("prompt_completion", {"prompt": "q", "completion": "a"}, ("q", "a")),
    ("instruction", {"instruction": "q", "output": "a"}, [Q, A]),
    ("instruction", {"instruction": "q", "input": "", "output": "a", "system": "s"}, [S, Q, A]),
    ("instruction", {"instruction": "x", "input": "y", "output": "a"}, [{**Q, "content": "x\ny"}, A]),
    ("instruction", {"instruction": "q", "output": "a", "history": [["q", "a"]]}, [Q, A, Q, A]),
    ("text", {"text": "a"}, "a"),
]


@pytest.mark.parametrize("name, row, meaning", ACCEPTED)
def test_accepted(name: FormatName, row: dict[str, Any], meaning: Any) -> None:
    assert detect_format([(1, row)], "x.jsonl") == name
    example = parse_row(row, 1, "x.jsonl", name)
    if example.messages is not None:
        assert example.messages == meaning
    else:
        assert (example.text or (example.prompt, example.completion)) == meaning


REFUSED: list[tuple[FormatName, dict[str, Any], list[str]]] = [
    ("instruction", {"instruction": "x", "input": ""}, ["key 'output' is missing; keys are: instruction, input"]),
    ("messages", {"text": "x"}, ["key 'messages' is missing; keys are: text"]),
    ("messages", {"messages": "x"}, ["field 'messages'", "a list of messages is needed, not a text"]),
    ("messages", {"messages": []}, ["field 'messages'", "the list is empty"]),
    ("messages", {"messages": ["x"]}, ["field 'messages[0]'", "a message is an object, not a text: 'x'"]),
    ("messages", {"messages": [{"role": "user"}]}, ["field 'messages[0]'", "key 'content' is missing; keys are: role"]),
    ("messages", {"messages": [{"role": "user", "content": 5}]}, ["'messages[0].content'", "not a number: 5"]),
    ("messages", {"messages": [{"role": "user", "content": None}]}, ["'messages[0].content'", "not null"]),
    (
        "messages",
        {"messages": [{"role": "bot", "content": "x"}]},
        ["'messages[0].role'", "unknown role 'bot'", "assistant"],
    ),
    ("messages", {"conversations": [{"from": "alien", "value": "x"}]}, ["conversations[0].from", "human"]),
    ("messages", {"messages": [Q, {**A, "content": " \n"}]}, ["'messages[1].content'", "answer is empty"]),
    ("messages", {"messages": [S, Q]}, ["no assistant turn", "roles are: system, user"]),
    ("messages", {"messages": [Q, {**A, "tool_calls": [{}]}]}, ["'messages[1].tool_calls'", "not read yet"]),
    ("messages", {"messages": [{**Q, "content": [{"type": "image_url"}]}, A]}, ["content of type 'image_url'"]),
    ("messages", {"messages": [Q, A], "tools": [{}]}, ["field 'tools'", "not read yet"]),
    ("prompt_completion", {"prompt": "q", "completion": ""}, ["field 'completion'", "empty"]),
    ("prompt_completion", {"prompt": [Q], "completion": "a"}, ["field 'completion'", "the other half"]),
    ("prompt_completion", {"prompt": "q", "completion": [A]}, ["field 'prompt'", "the other half"]),
    ("prompt_completion", {"prompt": [Q], "completion": [Q]}, ["field 'completion'", "no assistant turn"]),
    ("prompt_completion", {"prompt": 1, "completion": "a"}, ["field 'prompt'", "not a number"]),
    ("instruction", {"instruction": "x", "output": " "}, ["field 'output'", "empty"]),
    ("instruction", {"instruction": "x", "output": "a", "history": [["q"]]}, ["'history[0]'", "a pair"]),
    ("instruction", {"instruction": "x", "output": "a", "history": [["q", ""]]}, ["'history[0][1]'", "empty"]),
    ("instruction", {"instruction": "x", "output": "a", "history": "x"}, ["'history'", "a list"]),
    ("text", {"text": "\n"}, ["field 'text'", "empty"]),
    ("text", {"text": {"a": 1}}, ["field 'text'", "not an object"]),
]


@pytest.mark.parametrize("name, row, parts", REFUSED)
def test_refused(name: FormatName, row: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_row(row, 3, "dir/x.jsonl", name)
    for part in ["x.jsonl, row 3", *parts]:
        assert part in caught.value.sentence
    assert caught.value.fix


def test_unknown_keys_name_the_likely_ones() -> None:
    with pytest.raises(InputError, match=r"keys: question, answer\. Rename 'question' to 'prompt' and 'answer' to"):
        detect_format([(1, {"question": "q", "answer": "a"})], "x.jsonl")
    with pytest.raises(InputError, match="preference rows"):
        detect_format([(1, {"prompt": "q", "chosen": "a", "rejected": "b"})], "x.jsonl")


def test_unread_keys_are_listed() -> None:
    assert parse_row({**chat("q", "a"), "id": 7, "source": "x"}, 1, "x", "messages").unused == ("id", "source")


def test_split_prompt() -> None:
    assert split_prompt(parse_row({"messages": [S, Q, A]}, 1, "x", "messages")) == ([S, Q], "a")
    assert split_prompt(parse_row({"prompt": "q", "completion": "a"}, 1, "x", "prompt_completion")) == ("q", "a")
    for row, name in (({"text": "t"}, "text"), ({"messages": [A]}, "messages")):
        with pytest.raises(InputError, match="no question with an expected answer"):
            split_prompt(parse_row(row, 1, "x", name))  # type: ignore[arg-type]


KEYS = st.sampled_from(
    [
        "messages",
        "conversations",
        "role",
        "content",
        "from",
        "value",
        "prompt",
        "completion",
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "text",
        "tools",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["user", "gpt", "", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=4), st.sampled_from(FORMATS))
def test_any_row_is_understood_or_refused_by_name(row: dict[str, Any], name: FormatName) -> None:
    try:
        detect_format([(3, row)], Path("x.jsonl"))
        parse_row(row, 3, Path("x.jsonl"), name)
    except InputError as error:
        assert "x.jsonl, row 3" in error.where
