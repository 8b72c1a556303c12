"""A window on the text of a long JSON file: values are decoded one after the other, and what has been read is let go.

It grows only for a value that does not fit, so a list of several GB takes no more memory than its largest row.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import IO, Any

from studio.data.files.encoding import decode, whole_characters
from studio.data.readers import row as limits
from studio.data.readers.bytestream import skip_to
from studio.data.readers.json_text import DECODER, bad_json, may_be_cut
from studio.data.readers.lines import BOM
from studio.data.readers.row import Mark, too_long

_CHUNK = 1 << 18
_SPACE = re.compile(r"[ \t\r\n]*")


class Window:
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
        """Return the place up to which the file has been read."""
        read = self._text[: self.at]
        return Mark(self.offset + len(read.encode()), self.number, self._line - 1 + read.count("\n"))

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark."""
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
        """Read one character.

        Raises:
            InputError: another stands there; `message` says so.
        """
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
        """Say that something else was wanted at this place.

        Raises:
            InputError: in any case.
        """
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
