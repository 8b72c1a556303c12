"""A file, a pasted text or a command line, as flat keys with the lines on which they stand.

YAML and JSON are read under the limits of `studio.foreign`, with plain values only: no tag makes an object, no alias
grows, what is not text is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from studio.errors import InputError
from studio.foreign import RUN, TooMuchError, as_path, parse_json, read_yaml
from studio.interop.command import Command, looks_like_command, parse_command
from studio.reach import open_own, opened, page
from studio.settings import PRESETS

Kind = Literal["mapping", "command", "python"]
_KEY = re.compile(r"""^\s{0,4}(["']?)([A-Za-z_][\w.-]*)\1\s*:(?:\s|$)""", re.MULTILINE)
_PYTHON = re.compile(r"^(from \w[\w.]* import |import \w)", re.MULTILINE)
PASTED = "the text"


@dataclass(frozen=True)
class Given:
    """What was given.

    Attributes:
        values: by key, as YAML, JSON or the command line has them; those of a command line are texts, or True.
        lines: line of each key, from 1, where it is known.
        where: name of the file, or "the text", for errors.
        kind: a mapping (YAML or JSON), a command line, or Python.
        text: all of it.
        folder: of the file; None for a pasted text, beside which there is nothing to look for.
        command: the command line, where it is one.
        local: whoever gives it may read this machine's files by name: a command line of a terminal.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    where: str
    kind: Kind
    text: str
    folder: Path | None = None
    command: Command | None = None
    local: bool = False

    def place(self, key: str) -> str:
        """File, line and key, for the `where` of an error."""
        line = self.lines.get(key)
        return f"{self.where}, line {line}: {key}" if line else f"{self.where}: {key}"

    def merged(self, under: Given) -> Given:
        """Return these values over those of a file that the command line names."""
        lines = {**under.lines, **dict.fromkeys(self.values, 0), **self.lines}
        return replace(self, values={**under.values, **self.values}, lines=lines, folder=under.folder)


def read_given(given: str) -> Given:
    """Read what a person gave to a command: the path of a file, or a text.

    Raises:
        InputError: there is no such file and it is no text that can be read, either.
    """
    path = as_path(given)
    if "\n" not in given and len(given) < 4096 and "\0" not in given:
        if path.is_file():
            return replace(read_file(path), local=True)
        if " " not in given.strip() and ":" not in given:
            raise InputError("there is no such file", where=given, fix="Check the path, or put the command in quotes")
    return replace(read_text(given), local=True)


def read_file(path: Path) -> Given:
    """Read a file: YAML, JSON, a shell script with one command, or Python.

    Raises:
        InputError: it is not there, not text, too long, or cannot be read; with the line.
    """
    where = str(path)
    settings = page()
    try:
        # In the page it is what a browser has sent.
        with opened(path) if settings is None else open_own(path, PRESETS, settings.temporary) as file:
            raw = file.read(RUN.bytes + 1)
        if len(raw) > RUN.bytes:
            raise _too_long(where)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=where, fix="Check the path") from error
    except IsADirectoryError as error:
        raise InputError("this is a folder", where=where, fix="Give a file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=where, fix="Give a text file") from error
    return read_text(text, where=path.name if settings else where, folder=None if settings else path.resolve().parent)


def read_text(text: str, where: str = PASTED, folder: Path | None = None) -> Given:
    """Read a text: YAML, JSON, a command line or Python.

    Args:
        text: all of it.
        where: name of the file, for errors.
        folder: of the file; None where there is none.

    Raises:
        InputError: it is empty, too long, not text, or cannot be read; with the line.
    """
    if len(text.encode(errors="replace")) > RUN.bytes:
        raise _too_long(where)
    if "\0" in text:
        raise InputError("this is not text", where=where, fix="Give a YAML or JSON file, or a command line")
    if not text.strip():
        raise InputError("it is empty", where=where, fix="Give a config or a command line")
    if _PYTHON.search(text) and not text.startswith("#!/bin"):
        return Given({}, {}, where, "python", text, folder)
    if text.lstrip().startswith("{"):
        values = _json(text, where)
    elif looks_like_command(text):
        command = parse_command(text, where)
        return Given(dict(command.options), command.lines, where, "command", text, folder, command)
    else:
        values = read_yaml(text, where, "a config", "Give a smaller file")
    if not isinstance(values, dict) or not values:
        what = "nothing" if not values else f"a {type(values).__name__}" if not isinstance(values, str) else "a text"
        raise InputError(f"it holds {what} instead of keys", where=where, fix="Give a config or a command line")
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise InputError(f"the key {odd[0]!r:.40} is not a word", where=where, fix="Put it in quotes")
    return Given(values, _lines(text, values), where, "mapping", text, folder)


def _too_long(where: str) -> InputError:
    return InputError(f"it has more than {RUN.bytes // 1024} KB", where=where, fix="Give a config or a command line")


def _json(text: str, where: str) -> Any:
    try:
        return parse_json(text, RUN)
    except TooMuchError as error:
        raise InputError(f"this is not a config: {error}", where=where, fix="Give a smaller file") from error
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        what = getattr(error, "msg", str(error))
        place = f"{where}, line {line}" if line else where
        raise InputError(f"not valid JSON: {what}", where=place, fix="Fix the line") from error


def _lines(text: str, values: dict[str, Any]) -> dict[str, int]:
    """The line of each key: the first that begins with it."""
    lines: dict[str, int] = {}
    for found in _KEY.finditer(text):
        if found[2] in values and found[2] not in lines:
            lines[found[2]] = text.count("\n", 0, found.start(2)) + 1
    return lines
