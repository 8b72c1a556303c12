"""Requests and their errors, as data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.chat.protocol import ApiError, parse_request

GOOD: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}


def test_a_plain_request() -> None:
    asked = parse_request(json.dumps(GOOD).encode())
    assert asked.messages[0].plain() == {"role": "user", "content": "hi"}
    assert asked.limit is None


def test_parts_developer_and_both_limits() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {
        **GOOD,
        "messages": [{"role": "developer", "content": parts}],
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "stop": "x",
    }
    asked = parse_request(json.dumps(body).encode())
    assert asked.messages[0].plain() == {"role": "system", "content": "ab"}
    assert asked.limit == 7
    assert asked.stop == ["x"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]},
            "messages[0].content[0].type",
        ),
        ({"model": None}, "model"),
        ({"n": 2}, "n"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tools": [{}]}, "tools"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"stream_options": {"include": True}}, "stream_options.include"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(json.dumps({**GOOD, **change}).encode())
    assert caught.value.status == 400
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_hostile_bodies_are_a_sentence(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(body)
    assert caught.value.status == 400
