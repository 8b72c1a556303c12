"""Rows of JSON: one object a line, a list of objects, or an object that holds such a list.

Which of the three a file is, is told from its content. A list is read through a window on its text that grows only
for a row that does not fit, so a list of several GB takes no more memory than its lines would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from studio.data.readers import row as limits
from studio.data.readers.bytestream import open_unpacked
from studio.data.readers.json_tables import table_error
from studio.data.readers.json_text import DECODER, bad_json, checked, may_be_cut
from studio.data.readers.json_window import Window
from studio.data.readers.lines import BOM, LineReader, Lines, with_line_feeds
from studio.data.readers.row import Mark, Row
from studio.errors import InputError

LIST_KEYS = ("data", "rows", "examples", "train")
# Parts of a set that stand beside its rows for training.
_OTHER_PARTS = ("validation", "valid", "val", "dev", "test", "eval")
Shape = Literal["lines", "list", "object"]


class _SecondListError(InputError):
    """An object has a list of rows that would be left out."""


def json_shape(path: Path, head: bytes) -> Shape:
    """Return how a JSON file holds its rows.

    Args:
        path: the file.
        head: its first unpacked bytes.

    Raises:
        InputError: it is one JSON object without a list of rows, over several lines.
    """
    if head.removeprefix(BOM).lstrip()[:1] == b"[":
        return "list"
    with open_unpacked(path) as stream:
        lines = Lines(with_line_feeds(stream, head), path, rows=True)
        try:
            first = lines.filled()
        except InputError:
            # Longer than a row may be: it may still be a list within an object.
            return "object" if _holds_list(path) else "lines"
        try:
            value = DECODER.decode(first.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            cut = may_be_cut(error, len(first.rstrip()))
            return "object" if first.lstrip()[:1] == "{" and cut and _holds_list(path) else "lines"
        except (ValueError, RecursionError):
            return "lines"
        if not isinstance(value, dict) or lines.filled():
            return "lines"
        if (table := table_error(value, path)) is not None:
            raise table
        return "object" if any(_is_rows(value.get(key)) for key in LIST_KEYS) else "lines"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _holds_list(path: Path) -> bool:
    """Whether the file is one object with a list of rows; an object without one is an error, anything else False."""
    with open_unpacked(path) as stream:
        reader = JsonList(stream, path, within_object=True)
        try:
            return reader.enter()
        except _SecondListError:
            return True
        except InputError:
            return False
        finally:
            if reader.whole_object:
                raise _table_within(path) or InputError(
                    "the file is one JSON object, not a list of rows",
                    where=str(path),
                    fix='Write one object per line (JSONL), or a list: [{...}, {...}], or {"data": [...]}',
                )


def _table_within(path: Path) -> InputError | None:
    """The error for an object over several lines that is a table by its columns; None if it is none."""
    with open_unpacked(path) as stream:
        text = stream.read(limits.MAX_ROW_BYTES + 1)
    if len(text) > limits.MAX_ROW_BYTES:
        return None
    try:
        return table_error(DECODER.decode(text.removeprefix(BOM).decode()), path)
    except (ValueError, RecursionError):
        return None


class JsonLines(LineReader):
    """Rows of JSONL; a row's number is that of its line."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(Lines(stream, path, rows=True))
        self._path = path

    def skim(self) -> Iterator[int]:
        """Yield the numbers of the rows without reading what is in them."""
        while line := self._lines.read():
            if not line.isspace():
                yield self._lines.number

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (number, row)."""
        while line := self._lines.filled():
            text = line.rstrip("\r\n")
            number = self._lines.number
            try:
                value = DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                bad_json(error, text, self._path, number, number, ended=not line.endswith("\n"))
            yield number, checked(value, text, self._path, number)


class JsonList:
    """Rows of a list of objects; a row's number is its place in the list.

    Args:
        stream: the file.
        path: its name, for errors.
        within_object: the list is the value of one of `LIST_KEYS` in an object; the other values are not read.
    """

    def __init__(self, stream: IO[bytes], path: Path, within_object: bool = False) -> None:
        self._window = Window(stream, path)
        self._path, self._within_object = path, within_object
        self._inside = self.whole_object = False

    @property
    def position(self) -> int:
        """About the bytes read so far."""
        return self._window.offset + self._window.at

    def mark(self) -> Mark:
        """Return the place behind the last row."""
        return self._window.mark()

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark."""
        if mark.number:
            self._window.move_to(mark)
            self._inside = True

    def skim(self) -> Iterator[int]:
        """Yield the numbers of the rows."""
        return (number for number, _ in self.rows())

    def enter(self) -> bool:
        """Go to the first row; False where an object holds no list of rows.

        Raises:
            InputError: what stands before it is no JSON.
        """
        window = self._window
        if not self._within_object:
            window.take("[")
            if window.peek() == "]":
                raise InputError("the list is empty", where=str(self._path), fix="Put at least one object in it")
            return True
        window.take("{")
        more = window.peek() != "}"
        while more:
            key = window.key()
            if window.peek() == "[":
                if self._enter_list(key):
                    return True
            else:
                window.value()
            more = window.another()
        window.take("}", "Expecting ',' delimiter")
        self.whole_object = window.peek() == ""
        return False

    def _enter_list(self, key: str) -> bool:
        """Stand before the first row of a list of rows, or behind a list that is none."""
        window = self._window
        window.take("[")
        if key in LIST_KEYS and window.peek() == "{":
            return True
        if key in _OTHER_PARTS and window.peek() == "{":
            raise _SecondListError(
                f"the object has another list of rows besides the training rows, '{key}'",
                where=str(self._path),
                fix=f"Write each list to its own file, and set data.validation to the one with '{key}'",
            )
        more = window.peek() != "]"
        while more:
            window.value()
            more = window.another()
        window.take("]", "Expecting ',' delimiter")
        return False

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (number, row)."""
        window = self._window
        if not self._inside:
            self.enter()
            yield self._next()
        self._inside = True
        while window.peek() != "]":
            window.take(",", "Expecting ',' or ']'")
            if window.peek() == "]":
                window.number += 1
                window.refuse("Illegal trailing comma before end of array")
            yield self._next()
        window.take("]")
        if not self._within_object and window.peek():
            window.refuse("text after the end of the list")
        if self._within_object:
            self._leave_object()

    def _next(self) -> tuple[int, Row]:
        window = self._window
        window.number += 1
        value = window.value()
        self._inside = True
        return window.number, checked(value, window.last, self._path, window.number)

    def _leave_object(self) -> None:
        """Read what stands behind the list: another list of rows would be left out in silence."""
        window = self._window
        while window.another():
            key = window.key()
            if window.peek() != "[":
                window.value()
            elif self._enter_list(key):
                raise InputError(
                    f"the object has a second list of rows, '{key}'",
                    where=str(self._path),
                    fix="Write each list to its own file",
                )
        window.take("}", "Expecting ',' delimiter")
        if window.peek():
            window.refuse("text after the end of the object")
