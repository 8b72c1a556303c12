"""Formats: each accepted shape, and each refusal with its row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.data.formats.answers import FORMATS, FormatName, split_prompt
from studio.data.formats.conversations import SYNONYMS
from studio.data.formats.rows import detect, detect_format, parse_row
from studio.errors import InputError
from tests.data.rows import chat

Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
S = {"role": "system", "content": "s"}
FUNCTION = {"name": "now", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "12:00"}
ACCEPTED: list[tuple[FormatName, dict[str, Any], Any]] = [
    ("messages", {"messages": [S, Q, A]}, [S, Q, A]),
    ("messages", {"messages": [Q, A], "system": "s"}, [S, Q, A]),
    ("messages", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [Q, A]),
    ("messages", {"conversations": [Q, A]}, [Q, A]),
    ("messages", {"messages": [{**Q, "content": [{"type": "text", "text": "q"}]}, {**A, "tool_calls": None}]}, [Q, A]),
    ("messages", {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}, [Q, A]),
    ("messages", {"messages": [{**S, "role": "developer"}, Q, A]}, [S, Q, A]),
    ("messages", {"conversations": [{"speaker": "Human", "text": "q"}, {"speaker": "AI", "text": "a"}]}, [Q, A]),
    (
        "messages",
        {"messages": [Q, {**A, "content": None, "tool_calls": [{"id": 7, **CALL}]}, RESULT, A]},
        [Q, {**CALLED, "tool_calls": [{"id": "7", **CALL}]}, RESULT, A],
    ),
    (
        "messages",
        {
            "messages": [
                Q,
                {"role": "assistant", "function_call": CALL["function"]},
                {**RESULT, "role": "function", "name": "now"},
                A,
            ]
        },
        [Q, CALLED, {**RESULT, "name": "now"}, A],
    ),
    (
        "messages",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "now", "arguments": {"zone": "UTC"}}'},
                {"from": "observation", "value": "12:00"},
                {"from": "gpt", "value": "a"},
            ]
        },
        [
            Q,
            {**CALLED, "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {"zone": "UTC"}}}]},
            RESULT,
            A,
        ],
    ),
    ("messages", {"messages": [Q, {**A, "thinking": "t"}]}, [Q, {**A, "reasoning_content": "t"}]),
    (
        "messages",
        {"messages": [Q, {**A, "weight": 0}, {**Q, "weight": 0}, {**A, "weight": 1}]},
        [Q, {**A, "weight": 0}, Q, A],
    ),
    # As ms-swift and Axolotl mark them.
    (
        "messages",
        {"messages": [Q, {**A, "loss": False}, {**Q, "loss": False}, {**A, "loss": True, "weight": 1, "train": None}]},
        [Q, {**A, "weight": 0}, Q, A],
    ),
    (
        "messages",
        {"messages": [{**Q, "train": 0}, {**A, "train": 0}, Q, {**A, "training": False}]},
        [Q, {**A, "weight": 0}, Q, {**A, "weight": 0}],
    ),
    (
        "messages",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(CALL["function"]), "loss": False},
                RESULT,
                A,
            ]
        },
        [Q, {**CALLED, "weight": 0}, RESULT, A],
    ),
    ("prompt_completion", {"prompt": "q", "completion": "a", "system": "s"}, [S, Q, A]),
    ("prompt_completion", {"prompt": [Q], "completion": [A], "system": "s"}, [S, Q, A]),
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
    ("messages", {"messages": "x"}, ["field 'messages'", "expected a list of messages, got a string"]),
    ("messages", {"messages": []}, ["field 'messages'", "the list is empty"]),
    ("messages", {"messages": ["x"]}, ["field 'messages[0]'", "a message must be an object, not a string: 'x'"]),
    ("messages", {"messages": [{"role": "user"}]}, ["field 'messages[0]'", "key 'content' is missing; keys are: role"]),
    ("messages", {"messages": [{"role": "user", "content": 5}]}, ["'messages[0].content'", "got a number: 5"]),
    ("messages", {"messages": [{"role": "user", "content": None}]}, ["'messages[0].content'", "got null"]),
    (
        "messages",
        {"messages": [{"role": "narrator", "content": "x"}]},
        ["'messages[0].role'", "unknown role 'narrator'", "assistant", "or set the file's tags"],
    ),
    ("messages", {"conversations": [{"from": "alien", "value": "x"}]}, ["conversations[0].from", "alien"]),
    ("messages", {"messages": [{"who": "x", "said": "y"}]}, ["'messages[0]'", "keys are: who, said", "role=speaker"]),
    ("messages", {"messages": [Q, {**A, "content": " \n"}]}, ["'messages[1].content'", "answer is empty"]),
    ("messages", {"messages": [S, Q]}, ["no assistant message", "roles are: system, user"]),
    ("messages", {"messages": [Q, {**A, "tool_calls": [{}]}]}, ["'messages[1].tool_calls[0]'", "with a name"]),
    ("messages", {"messages": [Q, {**A, "tool_calls": "now()"}]}, ["'messages[1].tool_calls'", "name and arguments"]),
    (
        "messages",
        {"messages": [Q, {**A, "tool_calls": [{"function": {"name": "f", "arguments": "{1"}}]}]},
        ["'messages[1].tool_calls[0].arguments'", "invalid JSON"],
    ),
    (
        "messages",
        {"messages": [Q, {**A, "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
        ["'messages[1].tool_calls[0].arguments'", "not 5"],
    ),
    (
        "messages",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "now"}]},
        ["'conversations[1].value'", "a call with name and arguments"],
    ),
    ("messages", {"messages": [Q, {**A, "weight": 0.5}]}, ["'messages[1].weight'", "0 or 1, not 0.5"]),
    ("messages", {"messages": [Q, {**A, "weight": True}]}, ["'messages[1].weight'", "0 or 1, not True"]),
    ("messages", {"messages": [{**Q, "weight": 1}, A]}, ["'messages[0].weight'", "user message is never trained on"]),
    ("messages", {"messages": [Q, {**A, "loss": 0.5}]}, ["'messages[1].loss'", "loss must be false or true, not 0.5"]),
    ("messages", {"messages": [Q, {**A, "train": "no"}]}, ["'messages[1].train'", "false or true, not 'no'"]),
    ("messages", {"messages": [{**Q, "training": True}, A]}, ["'messages[0].training'", "is never trained on"]),
    (
        "messages",
        {"messages": [Q, {**A, "weight": 1, "loss": False}]},
        ["'messages[1].loss'", "weight and loss contradict each other", "Remove all but one"],
    ),
    ("messages", {"messages": [Q, {**A, "refusal": "no"}]}, ["'messages[1].refusal'", "not supported"]),
    ("messages", {"messages": "[{"}, ["field 'messages'", "invalid JSON"]),
    ("messages", {"messages": [{**Q, "content": [{"type": "image_url"}]}, A]}, ["content of type 'image_url'"]),
    ("messages", {"messages": [Q, A], "tools": [{}]}, ["field 'tools[0]'", "a function with a name"]),
    ("messages", {"messages": [Q, A], "tools": "x"}, ["field 'tools'", "a list of functions"]),
    ("messages", {"messages": [Q, A], "images": ["x.png"]}, ["field 'images'", "not supported yet"]),
    ("prompt_completion", {"prompt": "q", "completion": "a", "tools": TOOLS}, ["field 'tools'", "a plain-text row"]),
    ("prompt_completion", {"prompt": "q", "completion": ""}, ["field 'completion'", "empty"]),
    ("prompt_completion", {"prompt": [Q], "completion": "a"}, ["field 'completion'", "the other one"]),
    ("prompt_completion", {"prompt": "q", "completion": [A]}, ["field 'prompt'", "the other one"]),
    ("prompt_completion", {"prompt": [Q], "completion": [Q]}, ["field 'completion'", "no assistant message"]),
    ("prompt_completion", {"prompt": 1, "completion": "a"}, ["field 'prompt'", "got a number"]),
    ("instruction", {"instruction": "x", "output": " "}, ["field 'output'", "empty"]),
    ("instruction", {"instruction": "x", "output": "a", "history": [["q"]]}, ["'history[0]'", "a pair"]),
    ("instruction", {"instruction": "x", "output": "a", "history": [["q", ""]]}, ["'history[0][1]'", "empty"]),
    ("instruction", {"instruction": "x", "output": "a", "history": "x"}, ["'history'", "a list"]),
    ("text", {"text": "\n"}, ["field 'text'", "empty"]),
    ("text", {"text": {"a": 1}}, ["field 'text'", "got an object"]),
]


@pytest.mark.parametrize("name, row, parts", REFUSED)
def test_refused(name: FormatName, row: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_row(row, 3, "dir/x.jsonl", name)
    for part in ["x.jsonl, row 3", *parts]:
        assert part in caught.value.sentence
    assert caught.value.fix


def test_unknown_keys_name_the_likely_ones() -> None:
    with pytest.raises(InputError, match=r"question, answer\. Set the file's columns to: instruction=question, output"):
        detect_format([(1, {"question": "q", "answer": "a"})], "x.jsonl")
    with pytest.raises(InputError, match="preference pairs"):
        detect_format([(1, {"prompt": "q", "chosen": "a", "rejected": "b"})], "x.jsonl")


def test_unread_keys_are_listed() -> None:
    assert parse_row({**chat("q", "a"), "id": 7, "source": "x"}, 1, "x", "messages").unused == ("id", "source")


def test_unread_keys_of_turns_are_listed() -> None:
    turns = [{**Q, "timestamp": 5, "name": "Ann"}, {**A, "timestamp": 6, "thinking": "t", "reasoning": "other"}]
    example = parse_row({"messages": turns, "id": 7}, 1, "x", "messages")
    assert example.unused == ("id", "messages[].name", "messages[].reasoning", "messages[].timestamp")
    # Nothing is lost of what says the same again, says nothing, or is read.
    turns = [
        {**Q, "from": "human", "text": "q", "loss": False, "tool_calls": [], "name": None},
        {**A, "value": "a", "from": "gpt", "reasoning": "t", "thinking": "t", "weight": 1, "refusal": None},
        {**RESULT, "name": "now", "tool_call_id": "1"},
        {**A, "content": [{"type": "text", "text": "a"}], "text": "a"},
    ]
    assert parse_row({"messages": turns}, 1, "x", "messages").unused == ()
    pair = {"prompt": [{**Q, "id": 1}], "chosen": [{**A, "score": 5}], "rejected": {**A, "content": "b", "score": 1}}
    assert parse_row(pair, 1, "x", "preference", "pairs").unused == (
        "chosen[].score",
        "prompt[].id",
        "rejected[].score",
    )


@pytest.mark.parametrize("given", [TOOLS, [FUNCTION], json.dumps(TOOLS)])
@pytest.mark.parametrize("key", ["tools", "functions"])
def test_tools(key: str, given: Any) -> None:
    example = parse_row({"messages": [Q, A], key: given, "id": 1}, 1, "x", "messages")
    assert example.tools == TOOLS
    assert example.unused == ("id",)


def test_tag_names() -> None:
    row = {"messages": [{"role": "x", "content": "q", "who": "customer", "said": "q"}, {"who": "shop", "said": "a"}]}
    tags = {"role": "who", "content": "said", "user": "customer", "assistant": "shop"}
    assert parse_row(row, 1, "x", "messages", tags=tags).messages == [Q, A]
    with pytest.raises(InputError, match="unknown role 'customer'"):
        parse_row(row, 1, "x", "messages", tags={"role": "who", "content": "said"})
    # A word of the file's own beats the usual meaning.
    turned = {"conversations": [{"from": "bot", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert parse_row(turned, 1, "x", "messages", tags={"user": "bot"}).messages == [Q, A]


def test_roles_have_one_meaning() -> None:
    assert set(SYNONYMS.values()) == {"system", "user", "assistant", "tool", "call"}
    assert all(name == name.lower() for name in SYNONYMS)


def test_detection_gives_its_reason() -> None:
    assert detect([(1, {"messages": [Q, A]})], "x").reason == "the rows have the key messages"
    assert (
        detect([(1, {"prompt": "q", "completion": "a"})], "x").reason == "the rows have the keys prompt and completion"
    )
    found = detect([(1, {"prompt": "q", "completion": "a", "kto_tag": True})], "x", "rated")
    assert (found.format, found.reason) == ("rated", "the rows have the key kto_tag")


def test_a_tool_call_is_no_text_to_compare_with() -> None:
    with pytest.raises(InputError, match="the last answer is a tool call"):
        split_prompt(parse_row({"messages": [Q, CALLED]}, 1, "x", "messages"))


def test_an_answer_of_weight_0_is_not_what_a_prompt_asks_for() -> None:
    light = {**A, "content": "later", "weight": 0}
    assert split_prompt(parse_row({"messages": [S, Q, A, Q, light]}, 1, "x", "messages")) == ([S, Q], "a")
    asked, answer = split_prompt(parse_row({"messages": [Q, light, Q, A]}, 1, "x", "messages"))
    assert asked == [Q, light, Q] and answer == "a"


def test_split_prompt() -> None:
    assert split_prompt(parse_row({"messages": [S, Q, A]}, 1, "x", "messages")) == ([S, Q], "a")
    assert split_prompt(parse_row({"prompt": "q", "completion": "a"}, 1, "x", "prompt_completion")) == ("q", "a")
    for row, name in (({"text": "t"}, "text"), ({"messages": [A]}, "messages")):
        with pytest.raises(InputError, match="no prompt with an expected answer"):
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
