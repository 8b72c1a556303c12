"""Rows that several tests use."""

from __future__ import annotations

from typing import Any

from studio.data.formats.answers import Example
from studio.data.formats.rows import detect_format, parse_row
from studio.methods import RowKind

S = {"role": "system", "content": "s"}
Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
B = {"role": "assistant", "content": "b"}
GPT_Q = {"from": "human", "value": "q"}
GPT_A = {"from": "gpt", "value": "a"}
GPT_B = {"from": "gpt", "value": "b"}


def chat(question: str, answer: str) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def parse(kind: RowKind, row: dict[str, Any]) -> Example:
    """A row as a file of it would be understood."""
    return parse_row(row, 1, "x.jsonl", detect_format([(1, row)], "x.jsonl", kind), kind)
