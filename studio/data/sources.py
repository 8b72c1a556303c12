"""Data files: finding them, proving what they are, and reading their rows.

JSONL is streamed line by line; a JSON array is held as text and its rows are decoded one at a time. Whatever is
wrong is said with file, row and column. Nothing is guessed: a wrong encoding is named, never replaced.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from studio.data.encoding import decode, require_text
from studio.errors import InputError
from studio.settings import ASSETS, Settings

Row = dict[str, Any]
MAX_ROW_BYTES = 64 * 1024 * 1024
LIST_KEYS = ("data", "rows", "examples", "train")
_ENDINGS = (".json", ".jsonl", ".ndjson")
_SHOWN = 60


def resolve_path(path: str, settings: Settings, confined: bool = False) -> Path:
    """Return the file that a path of the configuration means.

    `demo/x.jsonl` is the studio's own demo data; everything else is absolute, or relative to the current
    folder, or else to `settings.uploads`.

    Args:
        path: as the configuration gives it.
        settings: where uploads lie, and the folders of `confined`.
        confined: allow only files in `settings.roots` (after links are resolved); for paths the page names.

    Raises:
        InputError: there is no such file, it is a folder, or it lies outside of the allowed folders.
    """
    given = Path(path.strip()).expanduser()
    if given.parts[:1] == ("demo",):
        found = ASSETS / given
    elif given.is_absolute() or given.exists() or not (settings.uploads / given).exists():
        found = given.absolute()
    else:
        found = settings.uploads / given
    if confined:
        confine(found, settings)
    _require_file(found, path)
    return found


def confine(path: Path, settings: Settings) -> Path:
    """Return `path` with links resolved if it lies in one of `settings.roots`.

    Raises:
        InputError: it lies outside.
    """
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in settings.roots):
        raise InputError(
            "the page may not read files there",
            where=str(path),
            fix="Upload the file, or add its folder to STUDIO_ROOTS before starting the studio",
        )
    return real


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What tells two states of a file apart without reading it."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of the file as it is now."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns)


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number, row) of a JSON or JSONL file.

    The row number counts from 1: in JSONL it is the number of the line (empty lines count and are left out), in a
    JSON array the place in the array. Which of the two it is, is told from the first character, not from the name.

    Raises:
        InputError: the file is missing, empty, binary or not UTF-8, or a row is not a JSON object.
    """
    _require_file(path, str(path))
    try:
        with path.open("rb") as file:
            yield from _read_open(file, path)
    except PermissionError as error:
        raise InputError("this user may not read the file", where=str(path), fix=f"chmod u+r {path}") from error


def _read_open(file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
    head = file.read(65536)
    require_text(head, path)
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    visible = head[start:].lstrip()
    if not visible and len(head) < 65536:
        raise InputError("the file is empty", where=str(path), fix="Put one JSON object in each line")
    file.seek(start)
    if visible[:1] == b"[":
        yield from _read_array(file.read(), path, start)
        return
    count = 0
    for number, row in _read_lines(file, path, start):
        count += 1
        yield number, row
    if not count:
        raise InputError("the file holds only empty lines", where=str(path), fix="Put one JSON object in each line")


def _read_lines(file: BinaryIO, path: Path, offset: int) -> Iterator[tuple[int, Row]]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise InputError(
                f"the row is longer than {MAX_ROW_BYTES // 2**20} MB",
                where=place(path, number),
                fix="Remove it, or check that each line holds one object only",
            )
        text = decode(line, path, offset, number).rstrip("\r\n")
        offset += len(line)
        if not text.strip():
            continue
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            if number == 1 and (rows := _whole_object(text, file, path, offset)) is not None:
                yield from rows
                return
            _bad_json(error, text, path, number)
        if number == 1 and (rows := _rows_inside(value, file, path)) is not None:
            yield from rows
            return
        yield number, _checked(value, text, path, number)


def _whole_object(first: str, file: BinaryIO, path: Path, offset: int) -> Iterator[tuple[int, Row]] | None:
    """Rows of `{"data": [...]}` written over several lines; None if the file is not one JSON object."""
    if not first.lstrip().startswith("{"):
        return None
    here = file.tell()
    try:
        value = _DECODER.decode(first + "\n" + decode(file.read(), path, offset, 2))
    except (ValueError, RecursionError):
        file.seek(here)
        return None
    if (rows := _list_in(value, path)) is not None:
        return rows
    raise InputError(
        "the file is one JSON object, not a list of rows",
        where=str(path),
        fix='Write one object in each line (JSONL), or a list: [{...}, {...}], or {"data": [...]}',
    )


def _rows_inside(value: Any, file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]] | None:
    """Rows of `{"data": [...]}` written as the only line; None if line 1 is a row like any other."""
    here = file.tell()
    only = not file.read(4096).strip()
    file.seek(here)
    return _list_in(value, path) if only else None


def _list_in(value: Any, path: Path) -> Iterator[tuple[int, Row]] | None:
    if not isinstance(value, dict):
        return None
    for key in LIST_KEYS:
        rows = value.get(key)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return ((number, _checked(row, None, path, number)) for number, row in enumerate(rows, 1))
    return None


def _read_array(data: bytes, path: Path, offset: int) -> Iterator[tuple[int, Row]]:
    text = decode(data, path, offset, None)
    del data
    at, number = _skip_space(text, text.index("[") + 1), 0
    if text[at : at + 1] == "]":
        raise InputError("the list is empty", where=str(path), fix="Put at least one object in it")
    while True:
        number += 1
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            _bad_json(error, text, path, number)
        yield number, _checked(value, text[at:end] if end - at < MAX_ROW_BYTES else None, path, number)
        at = _skip_space(text, end)
        mark = text[at : at + 1]
        at = _skip_space(text, at + 1)
        if mark == "]":
            if at < len(text):
                _bad_json(json.JSONDecodeError("text after the end of the list", text, at), text, path, number)
            return
        if mark != ",":
            _bad_json(json.JSONDecodeError("Expecting ',' or ']'", text, min(at, len(text))), text, path, number)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _checked(value: Any, text: str | None, path: Path, number: int) -> Row:
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)[:_SHOWN]
        raise InputError(
            f"the row is {_json_type(value)}, not an object: {shown}",
            where=place(path, number),
            fix='Write it as an object with keys, such as {"text": "..."}',
        )
    # A lone half of a surrogate pair can only come from a \ud... escape; no tokenizer accepts it.
    if (text is None or _SURROGATE_ESCAPE.search(text)) and (half := _lone_surrogate(value)):
        raise InputError(
            f"\\u{ord(half):04x} is half of a character (a lone surrogate)",
            where=place(path, number),
            fix="Write the character itself, or both halves of the pair",
        )
    return value


def _lone_surrogate(value: Any) -> str | None:
    match = re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False))
    return match.group() if match else None


def _bad_json(error: Exception, text: str, path: Path, number: int) -> NoReturn:
    """Raise the sentence for JSON that cannot be read: row, line and column, and what stands there."""
    fix = "Correct the row; each line holds one JSON object, strings in double quotes"
    if isinstance(error, RecursionError):
        raise InputError("the row is nested too deeply to be read", where=place(path, number), fix=fix) from error
    if not isinstance(error, json.JSONDecodeError):
        raise InputError(f"the row cannot be read: {error}", where=place(path, number), fix=fix) from error
    rest = text[error.pos : error.pos + 20].rstrip("\r\n")
    found = f"found {rest!r}" if rest else "the text ends there"
    line = error.lineno if text.count("\n", 0, error.pos) else number
    if "\n" not in text.rstrip("\n"):
        line = number
    before = text[: error.pos].rstrip()
    # Python 3.13 names the comma, earlier ones the bracket after it.
    if (before.endswith(",") and rest[:1] in "}]") or "trailing comma" in error.msg:
        fix = "Remove the comma before the closing bracket"
    elif rest.startswith("'"):
        fix = "Use double quotes instead of single ones"
    elif error.msg == "Extra data":
        fix = "Put each object on a line of its own"
    elif not rest and text.lstrip()[:1] == "{":
        fix = "Close the object on the same line: a JSONL file has one whole object in each line"
    what = f"bad JSON at line {line}, column {error.colno}: {_plain(error.msg)}, {found}"
    raise InputError(what, where=place(path, number), fix=fix) from error


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null or a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE = re.compile(r"[ \t\r\n]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89abAB-F]", re.ASCII)


def place(path: Path | str, row: int | None = None, field: str = "") -> str:
    """Return "file, row N, field 'x'" for an error's `where`; the file is named by its last part."""
    parts = [Path(path).name]
    if row is not None:
        parts.append(f"row {row}")
    if field:
        parts.append(f"field '{field}'")
    return ", ".join(parts)


def _json_type(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "an object")


def _require_file(path: Path, given: str) -> None:
    if path.is_file():
        return
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.suffix in _ENDINGS)[:5]
        fix = f"Name a file in it: {', '.join(names)}" if names else "Name a JSON or JSONL file; the folder has none"
        raise InputError(f"'{given}' is a folder", where=str(path), fix=fix)
    if path.exists():
        raise InputError(f"'{given}' is not an ordinary file", where=str(path), fix="Name a JSON or JSONL file")
    raise InputError(f"there is no file '{given}'", where=str(path), fix=_nearest(path))


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"Check the path; the folder {folder} does not exist either"
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    data = sorted(name for name in names if name.endswith(_ENDINGS))[:5]
    return f"In that folder there are: {', '.join(data)}" if data else f"Check the path; {folder} holds no data file"
