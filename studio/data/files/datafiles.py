"""Data files: finding them and reading their rows.

A path is a file or a folder of files; what a file is (JSON, CSV, Parquet …, packed or not) its content says first
(`readers`). Whatever is wrong is said with file, row and column. Nothing is guessed: a wrong encoding is named, never
replaced.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from studio import reach
from studio.data.readers.bytestream import open_unpacked
from studio.data.readers.columnar import columnar_rows
from studio.data.readers.delimited import Delimited
from studio.data.readers.documents import Documents
from studio.data.readers.json_rows import JsonLines, JsonList, json_shape
from studio.data.readers.kinds import FileKind, data_files, kind_by_name, kind_of_file
from studio.data.readers.lines import with_line_feeds
from studio.data.readers.row import Mark, Row, RowNumber, place
from studio.errors import InputError
from studio.foreign import as_path
from studio.settings import ASSETS, Settings

__all__ = [
    "Row", "Stamp", "TextReader", "confine", "data_files", "exists", "file_sha256", "is_plain_text",
    "no_rows", "open_reader", "place", "read_rows", "reading", "resolve_path",
]  # fmt: skip

# Addresses, which are no paths: file:///rows.jsonl, hf://datasets/org/name.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HUB_SET = re.compile(r"(?:hf:/|https?://(?:www\.)?(?:huggingface\.co|hf\.co))/datasets/([\w.-]+/[\w.-]+)")


def resolve_path(path: str, settings: Settings, confined: bool = False) -> Path:
    """Return the file, or the folder of data files, that a path of the configuration means.

    `demo/x.jsonl` is the studio's own demo data; everything else is absolute, or relative to the current
    folder, or else to `settings.uploads`.

    Args:
        path: as the configuration gives it.
        settings: where uploads lie, and the folders of `confined`.
        confined: allow only files in `settings.roots` (after links are resolved); for paths the page names.

    Raises:
        InputError: it is an address, there is no such file, it is a folder without data files or with several kinds
            of them, or it lies outside of the allowed folders.
    """
    _refuse_address(path)
    given = as_path(path)
    if given.parts[:1] == ("demo",):
        found = ASSETS / given
    elif given.is_absolute() or exists(given) or not exists(settings.uploads / given):
        found = given.absolute()
    else:
        found = settings.uploads / given
    if confined:
        confine(found, settings)
    _require_path(found, path)
    return found


def exists(path: Path) -> bool:
    """Whether there is something; False also for what can be no path (a NUL in it, or too long)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def confine(path: Path, settings: Settings) -> Path:
    """Return `path` with links resolved if the page may read there (`reach.allowed`).

    Raises:
        InputError: it may not.
    """
    real = reach.allowed(path, settings)
    if real is None:
        raise reach.refusal(path)
    return real


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    For a folder it is that of the list of its data files, as `sha256sum` prints it.
    """
    if path.is_dir():
        listed = "".join(f"{file_sha256(file)}  {file.name}\n" for file in data_files(path))
        return hashlib.sha256(listed.encode()).hexdigest()
    with reach.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What tells two states of a file (or of a folder's data files) apart without reading it."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of the file as it is now: bytes, and time of the last change in nanoseconds."""
        stats = [file.stat() for file in (data_files(path) if path.is_dir() else [path])]
        # A folder's own time tells of files that came, went or were renamed.
        times = [path.stat().st_mtime_ns, *(stat.st_mtime_ns for stat in stats)]
        return cls(sum(stat.st_size for stat in stats), max(times))


class TextReader(Protocol):
    """A reader of a file of text; reading can go on at any mark that an earlier reader of the file gave."""

    @property
    def position(self) -> int:
        """About the unpacked bytes read so far."""

    def mark(self) -> Mark:
        """Return the place behind the last row that was yielded."""

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark that lies ahead."""

    def skim(self) -> Iterator[int]:
        """Yield the numbers of the next rows; what is in a row is read only where its end cannot be told otherwise."""

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (number, row) of the next rows."""


@contextmanager
def open_reader(path: Path, file_kind: FileKind, by_line: bool = False) -> Iterator[TextReader]:
    """Open the reader of a file of JSON, CSV, TSV or text; with `by_line` each line of text is a row.

    Args:
        path: of the file, packed (gzip, zip, …) or not.
        file_kind: what its beginning tells.
        by_line: of a text file each line is a row, not each document; other kinds ignore it.

    Raises:
        InputError: its beginning cannot be read.
    """
    shape = json_shape(path, file_kind.head) if file_kind.kind == "json" else None
    with open_unpacked(path) as raw:
        stream = with_line_feeds(raw, file_kind.head)
        if shape is not None:
            yield JsonLines(stream, path) if shape == "lines" else JsonList(stream, path, shape == "object")
        elif file_kind.kind == "text":
            yield Documents(stream, path, by_line)
        else:
            yield Delimited(stream, path, tabs=file_kind.kind == "tsv")


def read_rows(path: Path, by_line: bool = False) -> Iterator[tuple[int, Row]]:
    """Yield (row number, row) of a file, or of all data files of a folder one after the other.

    A document of a plain text file ends at a blank line, with `by_line` at the end of its line.

    Row numbers count from 1. In JSONL and text it is the line in which the row begins (empty lines count and are left
    out), in CSV and TSV the row of the spreadsheet (the header is row 1), else the place in the file. The numbers of a
    folder's rows know their file (`RowNumber`).

    Raises:
        InputError: the file is missing, empty, of a kind that is not read, damaged or not UTF-8, or a row cannot be
            read.
    """
    _require_path(path, str(path))
    if not path.is_dir():
        yield from _read_file(path, by_line)
        return
    for file in data_files(path):
        for number, row in _read_file(file, by_line):
            yield RowNumber(number, file), row


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about a file that cannot be read into a sentence.

    Raises:
        InputError: it may not be read, is gone, or its disk fails.
    """
    try:
        yield
    except PermissionError as error:
        raise InputError(
            "this user is not allowed to read the file", where=str(path), fix=f"chmod u+r {path}"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "Check that it still exists, or copy it to a local disk"
        raise InputError(f"the file cannot be read: {reason}", where=str(path), fix=fix) from error


def _read_file(path: Path, by_line: bool) -> Iterator[tuple[int, Row]]:
    with reading(path):
        file_kind = kind_of_file(path)
        empty = True
        for numbered in columnar_rows(path, file_kind) if file_kind.columnar else _text_rows(path, file_kind, by_line):
            empty = False
            yield numbered
    if empty:
        raise no_rows(path, file_kind)


def _text_rows(path: Path, file_kind: FileKind, by_line: bool) -> Iterator[tuple[int, Row]]:
    with open_reader(path, file_kind, by_line) as reader:
        yield from reader.rows()


def is_plain_text(path: Path) -> bool:
    """Return whether the rows of a file or folder are documents of plain text."""
    return kind_of_file(data_files(path)[0] if path.is_dir() else path).kind == "text"


def no_rows(path: Path, file_kind: FileKind) -> InputError:
    """The error for a file without a single row."""
    if file_kind.kind == "json":
        what, fix = "the file has only blank lines", "Write one JSON object per line"
    elif file_kind.kind in ("csv", "tsv"):
        what, fix = "the file has a header but no rows", "Add rows below the header"
    else:
        what, fix = "the file has no rows", "Choose a file that has rows"
    return InputError(what, where=str(path), fix=fix)


def _require_path(path: Path, given: str) -> None:
    if not exists(path):
        raise InputError(f"there is no file '{given:.200}'", where=f"{path!s:.200}", fix=_instead(path))
    if path.is_file():
        return
    if path.is_dir():
        data_files(path)
    else:
        raise InputError(f"'{given}' is not a regular file", where=str(path), fix="Give a data file or a folder")


def _refuse_address(given: str) -> None:
    scheme = _ADDRESS.match(given.strip())
    if scheme is None:
        return
    if scheme[1].lower() == "file":
        fix = f"Give its path alone: /{given.strip()[scheme.end() :].removeprefix('localhost').lstrip('/'):.200}"
    elif (named := _HUB_SET.match(given.strip())) is not None:
        fix = f"Give the id of the dataset alone: {named[1]}"
    else:
        fix = "Rows are read from files of this computer and from datasets of the Hub: download it, and give its path"
    raise InputError(f"'{given:.200}' is an address, not a path", fix=fix)


def _instead(path: Path) -> str:
    """What to give instead of a path that leads to no file."""
    if path.is_symlink():
        return f"It is a link to {path.readlink()!s:.200}, which is not there: restore that file, or name another"
    return _nearest(path)


def _nearest(path: Path) -> str:
    folder = path.parent
    if not exists(folder) or not folder.is_dir():
        return f"Check the path; the folder {folder!s:.200} does not exist either"
    names = [name for name in reach.entries(folder) if (folder / name).is_file()]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    data = sorted(name for name in names if kind_by_name(name) is not None)[:5]
    return f"That folder has: {', '.join(data)}" if data else f"Check the path; {folder} has no data files"
