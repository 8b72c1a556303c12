"""A run as a Python script on plain TRL, or on Unsloth and TRL, as a person would write it."""

from __future__ import annotations

from studio.errors import InputError
from studio.interop.reading import Given
from studio.interop.report import Imported
from studio.interop.scripts.writing import write_trl, write_unsloth
from studio.interop.tool import Tool


def _read(given: Given) -> Imported:
    raise InputError(
        "a script is a program, which is not read", where=given.where,
        fix="Give the config or the command line that it is started with",
    )  # fmt: skip


TRL_SCRIPT = Tool(
    name="trl-script", title="TRL (script)", keys=frozenset(), starts=lambda command: False, read=_read, write=write_trl
)
UNSLOTH_SCRIPT = Tool(
    name="unsloth-script", title="Unsloth (script)", keys=frozenset(), starts=lambda command: False, read=_read,
    write=write_unsloth,
)  # fmt: skip

__all__ = ["TRL_SCRIPT", "UNSLOTH_SCRIPT"]
