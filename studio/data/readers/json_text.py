"""JSON as it stands in files: one strict decoder, and the sentences for text that it refuses.

Strict means: no NaN, no number that a float cannot hold, no key twice in one object, no half of a surrogate pair, and
no nesting that later steps could not write again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from studio.data.readers.json_mend import correct_row, json_mend
from studio.data.readers.row import Row, place
from studio.errors import InputError

MAX_DEPTH = 100
_SHOWN = 60
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89abAB-F]", re.ASCII)


class _TwiceError(ValueError):
    """An object has a key twice; `key` is it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key '{key[:_SHOWN]}' appears twice in one object")
        self.key = key


class _ConstantError(ValueError):
    """A number that JSON has not; `name` is it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not JSON")
        self.name = name


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"the number {text[:_SHOWN]} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def checked(value: Any, text: str | None, path: Path, number: int) -> Row:
    """Return a decoded value if it is a row.

    Args:
        value: the value.
        text: what it was decoded from, which spares a walk through most rows; None if it is not at hand.
        path, number: its place, for the error.

    Raises:
        InputError: it is no object, is nested too deeply, or holds half of a surrogate pair.
    """
    if (text is None or text.count("[") + text.count("{") > MAX_DEPTH) and _is_deep(value):
        raise _nested_too_deeply(path, number)
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)[:_SHOWN]
        what = f"the row is {json_type(value)}, not an object: {shown}"
        raise InputError(what, where=place(path, number), fix=_as_object(value, number == 1))
    # A lone half of a surrogate pair can only come from a \ud... escape; no tokenizer accepts it.
    if (text is None or _SURROGATE_ESCAPE.search(text)) and (half := _lone_surrogate(value)):
        raise InputError(
            f"\\u{ord(half):04x} is half of a character (a lone surrogate)",
            where=place(path, number),
            fix="Write the character itself, or both halves of the surrogate pair",
        )
    return value


def _as_object(value: Any, first: bool) -> str:
    """What to do about a row that is no object."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        return "Write the object itself: it was encoded twice (json.dumps of json.dumps)"
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        if all({"role", "content"} <= one.keys() or {"from", "value"} <= one.keys() for one in value):
            return 'Write each conversation as an object: {"messages": [...]}'
        return "Move the objects of the inner list into the outer one"
    table = ", or the table as CSV" if isinstance(value, list) and first else ""
    return f'Write it as an object with keys, such as {{"text": "..."}}{table}'


def bad_json(
    error: Exception,
    text: str,
    path: Path,
    number: int,
    line: int,
    column: int = 0,
    field: str = "",
    in_list: bool = False,
    ended: bool = False,
) -> NoReturn:
    """Raise the sentence for JSON that cannot be read: row, line and column, and what stands there.

    Args:
        error: what the decoder raised.
        text: what it was given.
        path, number, field: the place of the row.
        line: the line of the file in which `text` begins.
        column: characters of that line before `text`.
        in_list: the rows stand in a list, so an object may take several lines.
        ended: the file ends with `text`, without a line's end.
    """
    where = place(path, number, field)
    if isinstance(error, RecursionError):
        raise _nested_too_deeply(path, number) from error
    if isinstance(error, _TwiceError):
        fix = "Remove one of the two"
        raise InputError(str(error), where=where, fix=fix) from error
    if isinstance(error, _ConstantError):
        fix = f"Write null or a number instead of {error.name}"
        raise InputError(f"the row cannot be read: {error}", where=where, fix=fix) from error
    if not isinstance(error, json.JSONDecodeError):
        reason = "a number has more than 4,300 digits" if "integer string conversion" in str(error) else str(error)
        raise InputError(f"the row cannot be read: {reason}", where=where, fix=correct_row(in_list)) from error
    rest = text[error.pos : error.pos + 20].rstrip("\r\n")
    found = f"found {rest!r}" if rest else "the text ends there"
    newline = text.rfind("\n", 0, error.pos)
    at_line = line + text.count("\n", 0, error.pos)
    at_column = error.pos - newline if newline >= 0 else column + error.pos + 1
    message = error.msg[:1].lower() + error.msg[1:]
    what = f"bad JSON at line {at_line}, column {at_column}: {message}, {found}"
    if ended and not in_list and (not rest or error.msg.startswith("Unterminated")):
        what = f"the file ends in the middle of a row: {what}"
    fix = json_mend(error, text, in_list, ended, number == 1)
    raise InputError(what, where=where, fix=fix) from error


def may_be_cut(error: json.JSONDecodeError, length: int) -> bool:
    """Return whether more text could mend what the decoder refused; `length` is that of the text it was given."""
    # -Infinity is the longest word of JSON, \\u0041\\u0041 the longest escape.
    return error.msg.startswith("Unterminated string") or error.pos >= length - 16


def json_type(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "an object")


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _lone_surrogate(value: Any) -> str | None:
    match = re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False))
    return match.group() if match else None


def _nested_too_deeply(path: Path, number: int) -> InputError:
    return InputError(
        "the row is nested too deeply",
        where=place(path, number),
        fix=f"Flatten it to at most {MAX_DEPTH} levels",
    )
