"""Lines of a stream, each with its number and its place in bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, cast

from studio.data.files.encoding import decode
from studio.data.readers import row as limits
from studio.data.readers.bytestream import skip_to
from studio.data.readers.row import Mark, too_long
from studio.errors import InputError

BOM = b"\xef\xbb\xbf"


class _MacEnds(io.RawIOBase):
    """A stream whose carriage returns are line feeds; every byte stays in its place."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


def with_line_feeds(stream: IO[bytes], head: bytes) -> IO[bytes]:
    """Return a stream whose lines end with line feeds, as those of old Mac files, which have none, do not.

    Args:
        stream: the file.
        head: its first bytes, some thousands.
    """
    if b"\r" not in head.rstrip(b"\r") or b"\n" in head:
        return stream
    return cast("IO[bytes]", io.BufferedReader(_MacEnds(stream), 1 << 18))


class Lines:
    """Lines as text, their ends included.

    Attributes:
        number: lines read so far, so also the number of the last one.
        offset: bytes read so far.
        at_end: whether the file ended with the last line, before a line's end.
    """

    def __init__(self, stream: IO[bytes], path: Path, rows: bool = False) -> None:
        """Read the lines of `stream`; with `rows` each line is a row, and errors say so."""
        self._stream, self._path, self._rows = stream, path, rows
        self.number = self.offset = 0
        self.at_end = False

    def __iter__(self) -> Lines:
        """Return itself: lines are read once."""
        return self

    def __next__(self) -> str:
        """Return the next line.

        Raises:
            InputError: it is not UTF-8, holds a NUL, or is longer than a row may be.
        """
        line = self.read()
        if not line:
            raise StopIteration
        return self.text(line)

    def filled(self) -> str:
        """Return the next line that is not blank, "" at the end."""
        line = self.read()
        while line.isspace():
            line = self.read()
        return self.text(line)

    def read(self) -> bytes:
        """Return the bytes of the next line, b"" at the end."""
        line = self._stream.readline(limits.MAX_ROW_BYTES + 1)
        if not line:
            return b""
        self.number += 1
        self.at_end = not line.endswith(b"\n")
        if len(line) > limits.MAX_ROW_BYTES:
            raise too_long(self._path, self.number)
        if self.offset == 0 and line.startswith(BOM):
            self.offset = len(BOM)
            line = line[len(BOM) :] or b"\n"
        self.offset += len(line)
        return line

    def text(self, line: bytes) -> str:
        """Return a line that `read` gave as text."""
        row = self.number if self._rows else None
        text = decode(line, self._path, self.offset - len(line), row, self.number)
        if not self._rows and "\0" in text:
            raise InputError(
                f"line {self.number} contains a NUL character, so it is not text",
                where=str(self._path),
                fix="Export the file again; the program that wrote it mixed in binary data",
            )
        return text

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark that lies at or behind the present place."""
        if mark.offset > self.offset:
            skip_to(self._stream, mark.offset if self._stream.seekable() else mark.offset - self.offset)
            self.offset, self.number = mark.offset, mark.line


class LineReader:
    """What readers share whose rows begin and end with lines: how far they are, and marks to go on at."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._lines.offset

    def mark(self) -> Mark:
        """Return the place behind the last row."""
        return Mark(self._lines.offset, self._lines.number, self._lines.number)

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark."""
        self._lines.move_to(mark)
