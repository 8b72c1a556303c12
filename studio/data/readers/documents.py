"""Rows of plain text: a document ends at a blank line.

One rule for every text file, so that a file of any size is read as a stream and a row stays a piece that fits a
model: lines are kept together, a blank line (or several) begins the next document. A document with blank lines in it
is a row of JSONL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from studio.data.readers import row as limits
from studio.data.readers.lines import LineReader, Lines
from studio.data.readers.row import Row, too_long


class Documents(LineReader):
    """Rows `{"text": ...}` of a text file; a row's number is that of its first line.

    Args:
        stream: the file.
        path: its name, for errors.
        by_line: each line is a document, as LLaMA-Factory and `datasets` read such files.
    """

    def __init__(self, stream: IO[bytes], path: Path, by_line: bool = False) -> None:
        super().__init__(Lines(stream, path))
        self._path, self._by_line = path, by_line

    def skim(self) -> Iterator[int]:
        """Yield the numbers of the rows."""
        return (number for number, _ in self.rows())

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (number, row)."""
        block: list[str] = []
        begun = size = 0
        for line in self._lines:
            text = line.rstrip("\r\n")
            if text.strip():
                begun = begun if block else self._lines.number
                block.append(text)
                size += len(text) + 1
                if size > limits.MAX_ROW_BYTES:
                    raise too_long(self._path, begun, "Put a blank line between documents")
            if block and (self._by_line or not text.strip()):
                yield begun, {"text": "\n".join(block)}
                block, size = [], 0
        if block:
            yield begun, {"text": "\n".join(block)}
