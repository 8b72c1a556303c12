"""What the component of an option holds, and what the config takes: one turned into the other and back.

Apart from the components themselves, so that whoever only asks what values mean needs none of them.
"""

from __future__ import annotations

from typing import Any

from studio.config.describe import OptionSpec
from studio.errors import InputError

SWITCH = {"auto": "auto", "on": True, "off": False}


def from_field(spec: OptionSpec, value: Any) -> Any:
    """Turn what a component holds into what the config takes.

    Raises:
        InputError: empty, or text where a number belongs.
    """
    if isinstance(value, str):
        value = value.strip()
    if spec.kind == "words":
        return list(value or [])
    if spec.kind == "list" and not value:
        raise InputError("it is empty", where=spec.path, fix="Add at least one")
    if value is None or value == "":
        if spec.optional:
            return None
        if spec.auto:
            return "auto"
        # Of what is no number, such as 1e999, a browser says only that there is none.
        what = "there is no number in it" if is_number(spec) else "it is empty"
        raise InputError(what, where=spec.path, fix=f"Enter a value; the default is {spec.default}")
    if spec.kind == "flag" and spec.auto:
        return SWITCH.get(str(value), value)
    if spec.kind in ("integer", "number") and isinstance(value, str) and value != "auto":
        return _number(spec, value)
    return value


def to_field(spec: OptionSpec, value: Any) -> Any:
    """Turn a value of the config into what the component holds; the inverse of `from_field`."""
    if spec.kind == "flag":
        return {True: "on", False: "off"}.get(value, "auto") if spec.auto else value
    if spec.kind == "words":
        return list(value or [])
    if spec.kind == "list":
        return [item if isinstance(item, dict) else item.model_dump(mode="json") for item in value or []]
    if spec.kind == "text":
        if isinstance(value, dict):
            return ", ".join(f"{name}={number:g}" for name, number in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    if spec.kind in ("integer", "number") and not is_number(spec):
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return value


def is_number(spec: OptionSpec) -> bool:
    """Whether an option is a number and nothing else. gradio's Number turns an empty value into 0 when it is drawn."""
    return spec.kind in ("integer", "number") and not spec.auto and not spec.optional


def _number(spec: OptionSpec, text: str) -> float | int:
    plain = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        return int(plain) if spec.kind == "integer" else float(plain)
    except ValueError as error:
        kind = "whole number" if spec.kind == "integer" else "number"
        word = "a " + kind + (" or auto" if spec.auto else "")
        raise InputError(
            f"'{text:.60}' is not {word}", where=spec.path, fix=f"The default is {spec.default}"
        ) from error
