"""Flat YAML for other tools' readers, whatever version of YAML they follow: `1.0e-5`, not `1e-05`; text that could be
anything else in quotes; comments on top.
"""

from __future__ import annotations

import json
import re
from typing import Any

from studio.escaping import for_terminal

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*(?: [\w./-]+)*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"}


def scalar(value: Any) -> str:
    """A value in one line.

    Args:
        value: a text, number, flag, None, or a list or mapping of them.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(scalar(one) for one in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        if not exponent:
            return text
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(power):+d}"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else json.dumps(value, ensure_ascii=True)
    return str(value)


def document(values: dict[str, Any], head: list[str]) -> str:
    """Keys in their order, under comments.

    Args:
        values: by key.
        head: comments, a line each.
    """
    lines = [f"# {for_terminal(' '.join(line.split()))}" for line in head]
    return "\n".join([*lines, "", *(f"{key}: {scalar(value)}" for key, value in values.items())]) + "\n"
