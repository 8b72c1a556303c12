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
# Keys of a message that the service knows; it refuses a file with any other.
_MESSAGE = ("role", "content", "name", "weight", "refusal", "audio", "tool_calls", "tool_call_id", "function_call")


@dataclass(frozen=True)
class Sent:
    """A row to be sent.

    Attributes:
        number: in its file.
        row: in the service's format.
        unused: keys that are not sent, those of messages and of an input as "messages.KEY" and "input.KEY".
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
            made, more = _plain(_made(example, method, path))
            yield Sent(number, made, example.unused + more)
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
    sent, more = _plain({key: row[key] for key in kept if row.get(key) is not None})
    return Sent(number, sent, unused + more)


def prompt_of(row: Row) -> Row:
    """What a row asks: the row itself, or the input of a pair. Those of reinforcement may have any key, also input."""
    return row if "messages" in row else row["input"]


def _plain(row: Row) -> tuple[Row, tuple[str, ...]]:
    """A row whose messages have only the service's keys, and the others; a key that is null, as of a table, is none."""
    unused: dict[str, None] = {}

    def plain(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        for one in value:
            if isinstance(one, dict):
                unused.update({f"messages.{key}": None for key in one if key not in _MESSAGE and one[key] is not None})
        return [
            {key: one[key] for key in _MESSAGE if key in one and (one[key] is not None or key == "content")}
            if isinstance(one, dict) else one for one in value
        ]  # fmt: skip

    made = {key: plain(value) if key in ("messages", *_PAIR[1:]) else value for key, value in row.items()}
    if "messages" not in made and isinstance(asked := made.get("input"), dict):
        unused.update({f"input.{key}": None for key in asked if key not in _SUPERVISED})
        made["input"] = {key: asked[key] for key in _SUPERVISED if asked.get(key) is not None}
        made["input"] |= {"messages": plain(asked.get("messages"))}
    return made, tuple(unused)


def _made(example: Example, method: RemoteMethod, path: Path) -> Row:
    if example.messages is None:
        raise InputError(
            "plain text is not a conversation, and the service trains on conversations only",
            where=place(path, example.row), fix="Use rows with a question and an answer",
        )  # fmt: skip
    messages = _messages(example.messages)
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
        "non_preferred_output": _messages(rejected)[begin:],
    }


def _messages(messages: list[Row]) -> list[Row]:
    """Messages with the arguments of their calls as text, and an id for each call and its answer, as the service wants.

    An answer without one is that of the first call that has none yet.
    """
    made, open_calls, count = [], [], 0
    for message in messages:
        one = dict(message)
        if calls := one.get("tool_calls"):
            one["tool_calls"] = []
            for call in calls:
                count += 1
                one["tool_calls"].append({"id": f"call_{count}", **_call(call)})
            open_calls += [call["id"] for call in one["tool_calls"]]
        if one["role"] == "tool" and open_calls:
            one.setdefault("tool_call_id", open_calls[0])
            open_calls = [id for id in open_calls if id != one["tool_call_id"]]
        made.append(one)
    return made


def _call(call: Row) -> Row:
    function = call.get("function")
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
