"""Which format a file of rows has, and what a row means to a method.

The keys of the first row and what the method learns from decide; a later row that differs is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio.config.method import RowKind
from studio.data import preference
from studio.data.formats import FORMATS, LABELS, Example, FormatName, Where, parse_answer
from studio.data.sources import place
from studio.errors import InputError

# The formats that each kind of method can use; the first whose keys are there is taken.
READ: dict[RowKind, tuple[FormatName, ...]] = {
    "answers": FORMATS,
    "pairs": ("preference",),
    "rated": ("rated", "preference"),
    "prompts": ("messages", "prompt_completion", "instruction", "prompts"),
}
_KEYS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
    "preference": ("chosen", "rejected"),
    "prompts": ("prompt",),
}
# Keys that would change what is learned, so leaving them out in silence would train something else.
_REFUSED_IN_ROW = ("tools", "functions", "images", "image", "videos", "audios")
_RENAMES = {
    "response": "completion", "answer": "completion", "question": "prompt", "query": "prompt", "chat": "messages",
    "dialogue": "messages", "dialog": "messages", "conversation": "messages", "content": "text", "document": "text",
}  # fmt: skip
_NEEDED: dict[str, tuple[str, str]] = {
    "pairs": (
        "a pair needs the keys chosen and rejected",
        "Name the better answer chosen and the worse one rejected, with the question in prompt",
    ),
    "rated": (
        "a rated answer needs the key label (true or false)",
        "Add label beside prompt and completion, or give pairs of chosen and rejected",
    ),
    "prompts": (
        "the model writes the answers itself, so a row needs a prompt",
        "Name the question prompt, and what is right answer",
    ),
}


def detect_format(
    rows: Iterable[tuple[int, dict[str, Any]]], path: Path | str, kind: RowKind = "answers"
) -> FormatName:
    """Return the format that the keys of the first rows say.

    Args:
        rows: (number, row) of the first rows; only the first is decisive, the rest is for `parse_row` to check.
        path: the file, for the error.
        kind: what the method learns from.

    Raises:
        InputError: no format that the method can use has these keys.
    """
    for number, row in rows:
        for name in READ[kind]:
            if name == "rated":
                fits = any(key in row for key in LABELS)
            elif name == "messages":
                fits = "messages" in row or "conversations" in row
            else:
                fits = all(key in row for key in _KEYS[name])
            if fits:
                return name
        raise _unknown_format(row, number, path, kind)
    raise InputError("there is no row", where=str(path), fix="Put one JSON object in each line")


def kind_of(row: dict[str, Any], path: Path | str = "") -> RowKind:
    """Return the first kind of method that could learn from a row like this; "answers" if none could."""
    kinds: tuple[RowKind, ...] = ("pairs", "rated", "answers", "prompts")
    for kind in kinds:
        try:
            detect_format([(1, row)], path, kind)
        except InputError:
            continue
        return kind
    return "answers"


def parse_row(
    row: dict[str, Any], number: int, path: Path | str, format: FormatName, kind: RowKind = "answers"
) -> Example:
    """Return what a row means to a method of that kind.

    Raises:
        InputError: a key is missing, a value has the wrong type, a role is unknown, or there is nothing to learn.
    """
    where = Where(path, number)
    if format not in READ[kind]:
        raise where.error(
            f"rows of format {format} are not what this method learns from",
            "",
            f"Give rows of {' or '.join(READ[kind])}",
        )
    for key in _REFUSED_IN_ROW:
        if row.get(key) not in (None, [], "", {}):
            raise where.error(f"'{key}' is not read yet", key, f"Remove '{key}' from the rows, or use rows without it")
    if format == "preference":
        return preference.pair(row, where)
    if format == "rated":
        return preference.rated(row, where)
    if kind == "prompts":
        return preference.prompt(row, where, format)
    for key in ("chosen", "rejected"):
        if row.get(key) not in (None, [], "", {}):
            raise where.error(
                "preference rows are not read by sft", key, "Use dpo, orpo, kto or reward, or rows with one answer each"
            )
    return parse_answer(row, where, format)


def _unknown_format(row: dict[str, Any], number: int, path: Path | str, kind: RowKind) -> InputError:
    keys = ", ".join(map(str, row)) or "none"
    if kind != "answers":
        return InputError(f"{_NEEDED[kind][0]}; keys are: {keys}", where=place(path, number), fix=_NEEDED[kind][1])
    close = [f"'{key}' to '{_RENAMES[key]}'" for key in row if key in _RENAMES and _RENAMES[key] not in row]
    wanted = "messages; prompt, completion; instruction, output; or text"
    fix = f"Rename {' and '.join(close)}" if close else f"Name the keys {wanted}"
    if "chosen" in row and "rejected" in row:
        fix = (
            "These are preference rows: set method.name to dpo, orpo, kto or reward, or give rows with one answer each"
        )
    return InputError(f"no format has these keys: {keys}", where=place(path, number), fix=fix)
