"""The log of a job by line numbers, however long it is: its end, the line of a place, the lines around a line.

A line ends with a newline, as in an editor; numbers begin at 1. Nothing is kept of what is only counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from studio.errors import InputError
from studio.reach import open_in

TAIL_BYTES = 16 * 1024
CHUNK_BYTES = 1024 * 1024
LINE_BYTES = 4096  # What is shown of one line.


@dataclass(frozen=True)
class Tail:
    """The end of a log as text, and the number of the line that it begins in."""

    text: str
    first: int

    def line_at(self, place: int) -> int:
        """Return the number of the line that holds the character at `place`."""
        return self.first + self.text.count("\n", 0, place)


def read_tail(log: Path, size: int = TAIL_BYTES, start: int = 0) -> Tail:
    """Return the last `size` bytes of a file; an empty text when it is not there, or no file.

    Args:
        log: the file.
        size: so much of its end.
        start: nothing that stands before this byte; of a file that is shorter, all of it counts.
    """
    try:
        with open_in(log.parent, log.name) as file:
            whole = os.fstat(file.fileno()).st_size
            begin = max(start if start <= whole else 0, whole - size, 0)
            newlines, left = 0, begin
            while left:
                chunk = file.read(min(CHUNK_BYTES, left))
                if not chunk:
                    break
                newlines, left = newlines + chunk.count(b"\n"), left - len(chunk)
            return Tail(file.read().decode("utf-8", errors="replace"), newlines + 1)
    except (FileNotFoundError, PermissionError, InputError):
        return Tail("", 1)


def lines_around(log: Path, line: int, before: int = 200, after: int = 200) -> tuple[int, list[str]]:
    """Return the number of the first line and the lines around `line`; none where the log is shorter.

    Args:
        log: path; a missing file has no lines.
        line: counted from 1.
        before, after: how many lines to return on either side.
    """
    first, found = max(1, line - before), []
    try:
        with open_in(log.parent, log.name) as file:
            _skip_lines(file, first - 1)
            for _ in range(line + after + 1 - first):
                text = file.readline(LINE_BYTES)
                if not text:
                    break
                found.append(text.rstrip(b"\r\n").rpartition(b"\r")[2].decode("utf-8", errors="replace"))
                while text and not text.endswith(b"\n"):  # the rest of a very long line
                    text = file.readline(CHUNK_BYTES)
    except (FileNotFoundError, PermissionError, InputError):
        return first, []
    return first, found


def _skip_lines(file: IO[bytes], count: int) -> None:
    """Read on until `count` newlines have passed, by chunks: a log of a gigabyte takes about a second."""
    while count:
        chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        passed = chunk.count(b"\n")
        if passed <= count:
            count -= passed
            if not count and not chunk.endswith(b"\n"):
                file.seek(chunk.rfind(b"\n") + 1 - len(chunk), 1)
            continue
        place = -1
        for _ in range(count):
            place = chunk.index(b"\n", place + 1)
        file.seek(place + 1 - len(chunk), 1)
        return
