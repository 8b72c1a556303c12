"""Values and calls as a person writes them in Python."""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 120


class Expression(str):
    """Code that stands in a script as it is, where a value would be written out."""


def source(value: Any) -> str:
    """A plain value as Python, its texts in double quotes."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(source, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{source(key)}: {source(one)}' for key, one in value.items())}}}"
    return repr(value)


def call(what: str, arguments: list[str]) -> list[str]:
    """The lines of a call: one, where it is short enough.

    Args:
        what: what is called, with what it is given to in front.
        arguments: as they stand in the call.
    """
    line = f"{what}({', '.join(arguments)})"
    return [line] if len(line) <= _WIDTH else [f"{what}(", *(f"    {one}," for one in arguments), ")"]
