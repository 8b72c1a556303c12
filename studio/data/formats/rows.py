"""Which format a file of rows has, and what a row means to a method.

The keys of the first row and what the method learns from decide; a later row that differs is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.data.files.datafiles import place
from studio.data.files.where import Where, is_given, names_of
from studio.data.formats import preference
from studio.data.formats.answers import FORMATS, LABELS, Example, FormatName, parse_answer
from studio.data.formats.column_names import known_columns, meaning_of, suggest_columns
from studio.data.formats.conversations import LIST_KEYS, is_message, tools_of
from studio.data.readers.kinds import kind_by_name
from studio.errors import InputError
from studio.methods import METHODS, RowKind

# The formats that each kind of method can use; the first whose keys are there is taken.
READ: dict[RowKind, tuple[FormatName, ...]] = {
    "answers": FORMATS,
    "pairs": ("preference",),
    "rated": ("rated", "preference"),
    "prompts": ("messages", "prompt_completion", "instruction", "prompts"),
}
_KINDS: tuple[RowKind, ...] = ("pairs", "rated", "answers", "prompts")  # the most particular first
_KEYS: dict[str, tuple[str, ...]] = {
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
    "preference": ("chosen", "rejected"),
    "prompts": ("prompt",),
}
# Keys that would change what is learned, so leaving them out in silence would train something else.
_REFUSED_IN_ROW = ("images", "image", "videos", "audios")
_TOOL_KEYS = ("tools", "functions")
# A row of one of these beside who speaks is no single message.
_ANSWER_WORDS = ("prompt", "completion", "instruction", "output", "chosen", "rejected", "label")
_PAIRS = "this method trains on single answers, but the rows have a chosen and a rejected one"
_OF_PAIRS = [one.name for one in METHODS.values() if one.rows in ("pairs", "rated")]
_PAIRS_FIX = (
    f"These are preference pairs: set method.name to {', '.join(_OF_PAIRS[:-1])} or {_OF_PAIRS[-1]}, or use rows with "
    f"one answer each"
)
_NEEDED: dict[str, tuple[str, str]] = {
    "pairs": (
        "a pair needs the keys chosen and rejected",
        "Name the better answer chosen and the worse one rejected, and put the prompt in prompt",
    ),
    "rated": (
        "a labeled answer needs the key label (true or false)",
        "Add label to prompt and completion, or use pairs of chosen and rejected",
    ),
    "prompts": (
        "the model generates the completions itself, so a row needs a prompt",
        "Put the prompt in prompt, and the expected answer in answer",
    ),
}


@dataclass(frozen=True)
class Detected:
    """The format of a file, and why: "the rows have the keys prompt and completion"."""

    format: FormatName
    reason: str


def detect(rows: Iterable[tuple[int, dict[str, Any]]], path: Path | str, kind: RowKind = "answers") -> Detected:
    """Return the format that the keys of the first rows say, with the reason.

    Args:
        rows: (number, row) of the first rows; only the first is decisive, the rest is for `parse_row` to check.
        path: the file, for the error.
        kind: what the method learns from.

    Raises:
        InputError: no format that the method can use has these keys.
    """
    for number, row in rows:
        for name in READ[kind]:
            if (keys := _deciding(name, row)) is not None:
                plural = "s" if len(keys) > 1 else ""
                return Detected(name, f"the rows have the key{plural} {' and '.join(keys)}")
        raise _unknown_format(row, number, path, kind)
    raise InputError("there are no rows", where=str(path), fix="Write one JSON object per line")


def detect_format(
    rows: Iterable[tuple[int, dict[str, Any]]], path: Path | str, kind: RowKind = "answers"
) -> FormatName:
    """Return the format alone; see `detect`.

    Args:
        rows, path, kind: as `detect`.
    """
    return detect(rows, path, kind).format


def _deciding(name: FormatName, row: dict[str, Any]) -> tuple[str, ...] | None:
    """The keys of a row that say it has this format, or None."""
    if name in ("rated", "messages"):
        found = next((key for key in (LABELS if name == "rated" else LIST_KEYS) if key in row), None)
        return None if found is None else (found,)
    return _KEYS[name] if all(key in row for key in _KEYS[name]) else None


def kind_of(row: dict[str, Any]) -> RowKind:
    """Return the first kind of method that could learn from a row like this; "answers" if none could."""
    return fitting_kind(row) or "answers"


def fitting_kind(row: dict[str, Any]) -> RowKind | None:
    """Return the first kind of method that could learn from a row like this; None if none could."""
    found = next((kind for kind in _KINDS if _is_for(kind, row)), None)
    # Half of a pair: nobody meant the answer to be left out.
    if found == "prompts" and ("chosen" in row or "rejected" in row):
        return "pairs"
    return found


def fitting_kinds(row: dict[str, Any]) -> tuple[RowKind, ...]:
    """Return the kinds of method that could learn from a row like this, the most particular first."""
    pair = _deciding("preference", row) is not None  # which counts as one good and one bad answer, too
    return tuple(kind for kind in _KINDS if _is_for(kind, row) or (kind == "rated" and pair))


def _is_for(kind: RowKind, row: dict[str, Any]) -> bool:
    """Whether a row's keys are those that a kind of method learns from, by their own names or by what they say."""
    own = any(_deciding(name, row) is not None for name in READ[kind])
    # A question alone is in rows of every kind; what a written answer is compared with has names of its own.
    if kind == "prompts" or (
        kind == "answers" and "prompt" in row and any(key in row for key in preference.ANSWER_KEYS)
    ):
        return own
    return (own and (kind != "rated" or preference.has_answer(row))) or bool(known_columns(list(row), kind))


def parse_row(
    row: dict[str, Any],
    number: int,
    path: Path | str,
    format: FormatName,
    kind: RowKind = "answers",
    tags: Mapping[str, str] | None = None,
) -> Example:
    """Return what a row means to a method of that kind.

    Args:
        row: the row, its columns mapped (`columns`).
        number, path: where it is, for the errors.
        format: how it is written.
        kind: what the method learns from.
        tags: what the file calls the parts of a turn (`DataSource.tags`).

    Raises:
        InputError: a key is missing, a value has the wrong type, a role is unknown, or there is nothing to learn.
    """
    where = Where(path, number, tags)
    if format not in READ[kind]:
        raise where.error(
            f"this method cannot train on rows of format {format}",
            "",
            f"Use the format {' or '.join(READ[kind])}",
        )
    for key in _REFUSED_IN_ROW:
        if is_given(row.get(key)):
            raise where.error(
                f"'{key}' is not supported yet", key, f"Remove '{key}' from the rows, or use rows without it"
            )
    return _with_tools(_parsed(row, where, format, kind), row, where)


def _parsed(row: dict[str, Any], where: Where, format: FormatName, kind: RowKind) -> Example:
    if format == "preference":
        return preference.pair(row, where)
    if format == "rated":
        return preference.rated(row, where)
    if kind == "prompts":
        return preference.prompt(row, where, format)
    for key in ("chosen", "rejected"):
        if is_given(row.get(key)):
            raise where.error(_PAIRS, key, _PAIRS_FIX)
    return parse_answer(row, where, format)


def _with_tools(example: Example, row: dict[str, Any], where: Where) -> Example:
    tools = tools_of(row, where)
    if tools is not None and example.messages is None:
        what = "tools are rendered by the chat template, which a plain-text row does not use"
        raise where.error(what, "tools", "Write prompt and completion as messages, or remove the tools")
    unused = (*(key for key in example.unused if key not in _TOOL_KEYS), *sorted(where.unread))
    lost = _lost(example, row)
    if tools is None and unused == example.unused and not lost:
        return example
    return replace(example, tools=tools, unused=unused, lost=lost)


def _lost(example: Example, row: dict[str, Any]) -> tuple[str, ...]:
    """Columns that were not read and would belong to the prompt; a conversation has its own, and a text has none."""
    if not example.unused or example.text is not None or any(key in row for key in LIST_KEYS):
        return ()
    return tuple(key for key in example.unused if meaning_of(key) and is_given(row.get(key)))


def _unknown_format(row: dict[str, Any], number: int, path: Path | str, kind: RowKind) -> InputError:
    keys = names_of(row)
    if is_message(row) and not any(key in row for key in _ANSWER_WORDS):
        what = f"the row is one message of a conversation; keys are: {keys}"
        fix = 'Write one conversation per row: {"messages": [{"role": "user", "content": "..."}, ...]}'
        return InputError(what, where=place(path, number), fix=fix)
    if kind == "answers" and {"chosen", "rejected"} <= suggest_columns(list(row), "pairs").keys():
        return InputError(f"{_PAIRS}; keys are: {keys}", where=place(path, number), fix=_PAIRS_FIX)
    if kind == "answers":
        what = f"no format has these keys: {keys}"
        fix = "Rename the keys to messages; prompt, completion; instruction, output; or text"
        if kind_by_name(Path(path).name) in ("csv", "tsv"):
            fix += ". If the first line of the table is already a row, add a header with such names above it"
    else:
        what, fix = f"{_NEEDED[kind][0]}; keys are: {keys}", _NEEDED[kind][1]
        if kind in ("pairs", "rated") and _is_for("answers", row):
            fix += ". These are single answers: method.name: sft trains on them"
    if mapping := suggest_columns(list(row), kind):
        text = ", ".join(f"{role}={column}" for role, column in mapping.items())
        fix = f"Set the file's columns to: {text}"
    return InputError(what, where=place(path, number), fix=fix)
