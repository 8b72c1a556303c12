"""Rows of JSON: one object a line, a list of objects, or an object that holds such a list.

Which of the three a file is, is told from its content. A list is read through a window on its text that grows only
for a row that does not fit, so a list of several GB takes no more memory than its lines would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from studio.data.encoding import decode, whole_characters
from studio.data.readers import row as limits
from studio.data.readers.bytestream import open_unpacked, skip_to
from studio.data.readers.json_tables import table_error
from studio.data.readers.json_text import DECODER, bad_json, checked, may_be_cut
from studio.data.readers.lines import BOM, LineReader, Lines, with_line_feeds
from studio.data.readers.row import Mark, Row, too_long
from studio.errors import InputError

LIST_KEYS = ("data", "rows", "examples", "train")
Shape = Literal["lines", "list", "object"]
_CHUNK = 1 << 18
_SPACE = re.compile(r"[ \t\r\n]*")


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
        except InputError:
            return False
        finally:
            if reader.whole_object:
                raise _table_within(path) or InputError(
                    "the file is one JSON object, not a list of rows",
                    where=str(path),
                    fix='Write one object in each line (JSONL), or a list: [{...}, {...}], or {"data": [...]}',
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
        self._window = _Window(stream, path)
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
                    fix="Write each list to a file of its own",
                )
        window.take("}", "Expecting ',' delimiter")
        if window.peek():
            window.refuse("text after the end of the object")


class _Window:
    """A part of a stream's text, and the place in it up to which it has been read.

    Attributes:
        number: of the row that is being read, for errors.
        offset: bytes of the stream before the window.
        at: characters of the window that have been read.
        last: the text of the last value.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._text, self._cut, self._ended = "", b"", False
        self._line, self._column = 1, 0
        self.number = self.offset = self.at = 0
        self.last = ""

    def mark(self) -> Mark:
        read = self._text[: self.at]
        return Mark(self.offset + len(read.encode()), self.number, self._line - 1 + read.count("\n"))

    def move_to(self, mark: Mark) -> None:
        skip_to(self._stream, mark.offset)
        self._line, self.offset, self.number = mark.line + 1, mark.offset, mark.number

    def peek(self) -> str:
        """The next character that is no blank, "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self._text) or self._ended:
                return self._text[self.at : self.at + 1]
            self._grow()

    def take(self, mark: str, message: str = "") -> None:
        if self.peek() != mark:
            self.refuse(message or f"Expecting '{mark}'")
        self.at += 1

    def another(self) -> bool:
        """Whether a comma stands here; it is read."""
        if self.peek() != ",":
            return False
        self.at += 1
        return True

    def key(self) -> str:
        """Read a key of an object and its colon."""
        if self.peek() != '"':
            self.refuse("Expecting property name enclosed in double quotes")
        key: str = self.value()
        self.take(":", "Expecting ':' delimiter")
        return key

    def value(self) -> Any:
        """Decode the next value, reading on until it is whole."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                if self._ended or not may_be_cut(error, len(self._text)):
                    self._bad(error)
            except (ValueError, RecursionError) as error:
                self._bad(error)
            else:
                # A number at the end of the window may go on behind it.
                if end - self.at <= limits.MAX_ROW_BYTES and (end < len(self._text) or self._ended):
                    self.last = self._text[self.at : end]
                    self.at = end
                    return value
            if len(self._text) - self.at > limits.MAX_ROW_BYTES:
                raise too_long(self._path, self.number, "Remove it, or check that its quotes and brackets are closed")
            self._grow()

    def refuse(self, message: str) -> None:
        self._bad(json.JSONDecodeError(message, self._text, min(self.at, len(self._text))))

    def _bad(self, error: Exception) -> None:
        bad_json(error, self._text, self._path, max(1, self.number), self._line, self._column, in_list=True)

    def _grow(self) -> None:
        """Forget what has been read and take as much again as is left, so that growing to n costs O(n).

        Never much more than the largest row is held.
        """
        read = self._text[: self.at]
        newline = read.rfind("\n")
        self._column = self._column + len(read) if newline < 0 else len(read) - newline - 1
        self._line += read.count("\n")
        self.offset += len(read.encode())
        left = self._text[self.at :]
        ahead = self.offset + len(left.encode())
        wanted = max(_CHUNK, min(len(left), limits.MAX_ROW_BYTES + 1 - len(left)))
        data = self._cut + self._stream.read(wanted)
        self._ended = len(data) == len(self._cut)
        if ahead == 0 and data.startswith(BOM):
            data = data[len(BOM) :]
            self.offset = ahead = len(BOM)
        whole = len(data) if self._ended else whole_characters(data)
        self._text = left + decode(data[:whole], self._path, ahead, None, self._line + left.count("\n"))
        self._cut = data[whole:]
        self.at = 0
