"""What passes between the page's process and the data worker: one JSON object a line.

    to the worker    {"id": 7, "op": "preview", "args": {...}}   or   {"cancel": 7}
    from it          {"id": 7, "progress": ["tokenizing", 256, 560]}      any number of times
                     {"id": 7, "alive": true}                             twice a second while it works
                     {"id": 7, "result": {...}}   or   {"id": 7, "error": {...}}

Errors that a person is meant to read arrive as the same classes they were raised as. Light: both sides import it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.errors import InputError, InputErrors, StoppedError, StudioError

Values = dict[str, Any]
# The sections of a run that decide how its rows are read.
SECTIONS = ("data", "method", "model")
# What is shown of one row goes through the page's process, which has little memory.
SHOWN_TOKENS = SHOWN_CHARACTERS = 20_000


def run_sections(config: RunConfig, folder: Path | None = None) -> Values:
    """What operations on a run's data are told of it.

    Args:
        config: the run.
        folder: where its model lies; None leaves that to the worker.
    """
    sections = {name: getattr(config, name).model_dump() for name in SECTIONS}
    if folder is not None:
        sections["model"]["path"] = str(folder)
    return sections


def to_line(message: dict[str, Any]) -> bytes:
    """Return a message as one line of ASCII, whatever characters its texts have."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def error_to_dict(error: StudioError) -> dict[str, Any]:
    """Return the parts of an error, and those of each error that it holds."""
    parts: dict[str, Any] = {**error.as_dict(), "input": isinstance(error, InputError)}
    if isinstance(error, StoppedError):
        parts["stopped"] = True
    if isinstance(error, InputErrors):
        parts["errors"] = [error_to_dict(one) for one in error.errors]
    return parts


def error_from_dict(parts: dict[str, Any]) -> StudioError:
    """Return the error that `error_to_dict` took apart."""
    if parts.get("errors"):
        return InputErrors([InputError(one["what"], where=one["where"], fix=one["fix"]) for one in parts["errors"]])
    kind = InputError if parts.get("input") else StoppedError if parts.get("stopped") else StudioError
    return kind(parts["what"], where=parts["where"], fix=parts["fix"])


def shortened(value: Any) -> Any:
    """Return a value of a row with its long texts cut, each with how long it is."""
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:SHOWN_CHARACTERS]} … ({len(value):,} characters)"
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list) else value
