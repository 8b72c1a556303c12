"""The rows of a file as the service takes them: as they are where they have its format, else made from what they mean.

supervised: {"messages", "tools"}; dpo: {"input", "preferred_output", "non_preferred_output"}; reinforcement:
{"messages"} that end with the prompt, and whatever the grader compares with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from studio.config.data import DataSource
from studio.config.remote import KINDS, RemoteMethod
from studio.data.files.datafiles import place, read_rows
from studio.data.formats.answers import Example, FormatName
from studio.data.sources.locate import of_file
from studio.data.sources.reading import Reading
from studio.errors import InputError

Row = dict[str, Any]
T = TypeVar("T")
_SUPERVISED = ("messages", "tools", "parallel_tool_calls", "functions")
_PAIR = ("input", "preferred_output", "non_preferred_output")


@dataclass(frozen=True)
class Sent:
    """A row to be sent.

    Attributes:
        number: in its file.
        row: in the service's format.
        unused: keys that are not sent.
        error: why it cannot be used; `row` is empty then.
    """

    number: int
    row: Row
    unused: tuple[str, ...] = ()
    error: InputError | None = None


def rows_of(path: Path, method: RemoteMethod) -> Iterator[Sent]:
    """Yield the rows of a file.

    Args:
        path: in any format that the studio reads.
        method: what they are for.

    Raises:
        InputError: the file cannot be read, or its first row is for no such method.
    """
    reading: Reading | None = None
    format_name: FormatName | None = None
    for number, row in read_rows(path):
        if _ready(row, method):
            yield _as_it_is(number, row, method)
            continue
        if reading is None or format_name is None:
            reading = Reading(DataSource(path=str(path)), of_file(path), KINDS[method], turns=True)
            format_name, _ = reading.format([(number, row)])
        try:
            example = reading.example(row, number, format_name)
            yield Sent(number, _made(example, method, path), example.unused)
        except InputError as error:
            yield Sent(number, {}, error=error)


def split(rows: Sequence[T], share: float, seed: int) -> tuple[list[T], list[T]]:
    """Hold out a share of the rows for validation, the same ones each time.

    Args:
        rows: all of them, or something about each.
        share: 0 to 0.5.
        seed: of the choice.

    Returns:
        training and validation rows, each in their order.
    """
    count = round(len(rows) * share)
    held = set(random.Random(seed).sample(range(len(rows)), count))
    return [row for at, row in enumerate(rows) if at not in held], [rows[at] for at in sorted(held)]


def as_line(row: Row) -> bytes:
    """A line of the file to send; the same row gives the same bytes."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _ready(row: Row, method: RemoteMethod) -> bool:
    if KINDS[method] == "pairs":
        return isinstance(row.get("input"), dict) and "preferred_output" in row
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or "chosen" in row:
        return False
    last = messages[-1].get("role") if isinstance(messages[-1], dict) else None
    return method == "supervised" or last != "assistant"


def _as_it_is(number: int, row: Row, method: RemoteMethod) -> Sent:
    kept = tuple(row) if method == "reinforcement" else _SUPERVISED if method == "supervised" else _PAIR
    unused = tuple(key for key in row if key not in kept)
    return Sent(number, {key: row[key] for key in kept if row.get(key) is not None}, unused)


def _made(example: Example, method: RemoteMethod, path: Path) -> Row:
    if example.messages is None:
        raise InputError(
            "plain text is not a conversation, and the service trains on conversations only",
            where=place(path, example.row), fix="Use rows with a question and an answer",
        )  # fmt: skip
    messages = [_message(one) for one in example.messages]
    tools = {"tools": example.tools} if example.tools else {}
    if method == "reinforcement":
        answer = {} if example.answer is None else {"answer": example.answer}
        return {"messages": messages, **tools, **example.columns, **answer}
    if method == "supervised":
        for message in messages[: example.trained_from]:
            if message["role"] == "assistant":
                message["weight"] = 0
        return {"messages": messages, **tools}
    begin = example.trained_from
    rejected = example.rejected if isinstance(example.rejected, list) else []
    return {
        "input": {"messages": messages[:begin], **tools},
        "preferred_output": messages[begin:],
        "non_preferred_output": [_message(one) for one in rejected[begin:]],
    }


def _message(message: Row) -> Row:
    """A message with the arguments of its calls as text, as the service wants them."""
    made = dict(message)
    if calls := made.get("tool_calls"):
        made["tool_calls"] = [_call(one) for one in calls]
    return made


def _call(call: Row) -> Row:
    function = call.get("function")
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
