"""Single values of other tools' configs: each reader takes what YAML, JSON or a command line gives, and says what is
wrong in words. `1e-4` is a number also where it is text, and `yes` is true also where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[Any], Any]
_TRUE, _FALSE = {"true", "yes", "on", "1", "y", "t"}, {"false", "no", "off", "0", "n", "f"}
_NOTHING = {"null", "none", "~", ""}


def is_nothing(value: Any) -> bool:
    """Whether a value says that the default holds: null, also as text, or nothing at all."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def number(value: Any) -> float:
    """A number, also as text; a whole one stays whole.

    Raises:
        ValueError: it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number is needed")
    try:
        found = float(value)
    except ValueError as error:
        raise ValueError("a number is needed") from error
    if not math.isfinite(found):
        raise ValueError("a finite number is needed")
    return int(found) if found.is_integer() and abs(found) < 1e15 else found


def whole(value: Any) -> int:
    """A whole number, also as text.

    Raises:
        ValueError: it is none.
    """
    found = number(value)
    if not float(found).is_integer():
        raise ValueError("a whole number is needed")
    return int(found)


def flag(value: Any) -> bool:
    """True or false, also as text.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("true or false is needed")
    return word in _TRUE


def text(value: Any) -> str:
    """A text; a number is one, too, as it is written.

    Raises:
        ValueError: it is a list or a mapping, or empty.
    """
    if isinstance(value, list | dict | bool) or is_nothing(value):
        raise ValueError("a text is needed")
    return str(value).strip()


def words(value: Any) -> list[str]:
    """A list of texts, or a text with commas or blanks between them.

    Raises:
        ValueError: there is none, or a part is no text.
    """
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise ValueError("a list of words is needed")
    return [word for part in parts for word in text(part).replace(",", " ").split()]


def one_of(table: Mapping[str, Any]) -> Reader:
    """A reader that takes one of some words, in any case, and returns what stands for it in `table`."""

    def read(value: Any) -> Any:
        word = str(value).strip().lower()
        if word not in table:
            raise ValueError(f"one of {', '.join(table)} is needed")
        return table[word]

    return read
