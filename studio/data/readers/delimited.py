"""Rows of CSV and TSV: the first row names the columns, every value is text.

Numbers, dates and empty cells stay the text that they are. Only a conversation or a list of tools, which a cell
cannot hold otherwise, is read from the JSON in it.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from studio.data.readers import row as limits
from studio.data.readers.json_text import DECODER, bad_json, checked
from studio.data.readers.lines import Lines
from studio.data.readers.row import Mark, Row, place, too_long
from studio.errors import InputError

# Columns that are lists of objects in every format, and those that may be text or messages.
_LISTS = ("messages", "conversations", "tools")
_TEXT_OR_MESSAGES = ("prompt", "completion", "chosen", "rejected")
_NAMES_SHOWN = 8
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
_SEPARATOR = re.compile('"?sep=(.)"?', re.IGNORECASE)
# What separates columns in files that are not read without being told.
_RARE = (":", "^", "~", "#", "&", "\x01", "\x1f")
_CUT = "If the file is still being written, wait until it is complete; if it is truncated, copy or download it again"
# A row with more lines has a quote that is never closed; saying so at once saves reading the rest of the file.
_MAX_ROW_LINES = 100_000


class Delimited:
    """Rows of a table of text.

    A row's number is that of a spreadsheet: the header is row 1, and empty rows count.

    Args:
        stream: the file.
        path: its name, for errors.
        tabs: whether its name says that tabs separate the columns. What the header and the row below it show counts
            before that: commas, semicolons, tabs or |.
    """

    def __init__(self, stream: IO[bytes], path: Path, tabs: bool) -> None:
        self._lines, self._path = Lines(stream, path), path
        self._number = self._begun = 0
        self._rows_before = False
        first, told = "", None
        for first in self._lines:
            if told is None and (told := _SEPARATOR.fullmatch(first.strip())):
                continue  # a line for Excel alone, which it does not show
            if first.strip():
                break
            self._number += 1
        self._delimiter = told[1] if told else _delimiter(first, _peeked(stream), tabs)
        between = re.escape(self._delimiter)
        self._late_quote = re.compile(f'(?:^|{between}) +"(?![{between}"\r\n]|$)')
        self._cells = self._reader(itertools.chain([first], self._lines))
        self._header = self._checked_header(self._record(self._lines.number))
        if told is None and len(self._header) == 1:
            self._require_separator(first, _peeked(stream))

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._lines.offset

    def mark(self) -> Mark:
        """Return the place behind the last row."""
        return Mark(self._lines.offset, self._number, self._lines.number)

    def move_to(self, mark: Mark) -> None:
        """Continue at a mark."""
        if mark.number > self._number:
            self._lines.move_to(mark)
            self._number, self._rows_before = mark.number, True
            self._cells = self._reader(self._lines)

    def skim(self) -> Iterator[int]:
        """Yield the numbers of the rows without reading JSON in their cells."""
        return (self._number for _ in self._cells_of_rows())

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (number, row)."""
        special = [name for name in (*_LISTS, *_TEXT_OR_MESSAGES) if name in self._header]
        for cells in self._cells_of_rows():
            row: Row = dict(zip(self._header, cells, strict=True))
            for name in special:
                row[name] = self._value(row[name], name)
            yield self._number, row

    def _cells_of_rows(self) -> Iterator[list[str]]:
        count = len(self._header)
        while (cells := self._record()) is not None:
            if self._delimiter == "\t" and self._lines.number > self._begun:
                self._require_own_lines(cells)
            if len(cells) == count:
                yield cells
                self._rows_before = True
            elif cells:
                raise self._uneven(cells)

    def _require_own_lines(self, cells: list[str]) -> None:
        """Refuse a cell of a row over several lines that has another row in it.

        Tools write TSV without quoting, so a text that begins with a quote opens a cell, which ends at the next text
        that happens to end with one.
        """
        tabs = len(self._header) - 1
        # A line of code that is indented by a tab is none.
        if tabs and any(
            line.count("\t") == tabs and line[:1] != "\t" for cell in cells for line in cell.split("\n")[1:]
        ):
            raise InputError(
                f"rows seem to be swallowed by a quote that begins a cell: the row has lines {self._begun} to "
                f"{self._lines.number}, and one within a cell has as many tabs as the header",
                where=place(self._path, self._number),
                fix="Double the quote and put the whole cell in quotes, or remove the quote; if the cell is meant to "
                "hold such lines, save the table as CSV",
            )

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        # The limit is one for the whole process; no other part of the studio reads CSV.
        csv.field_size_limit(limits.MAX_ROW_BYTES)
        return csv.reader(self._few(lines), delimiter=self._delimiter, strict=True)

    def _few(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if self._lines.number - self._begun > _MAX_ROW_LINES:
                raise InputError(
                    f"a quoted cell of the row that begins on line {self._begun} spans {_MAX_ROW_LINES:,} lines",
                    where=place(self._path, self._number),
                    fix="Close the quote; double a quote inside a quoted cell",
                )
            # Within a quoted cell a quote is written twice, so one that stands alone behind a blank opens a cell.
            if '"' in line and self._late_quote.search(line):
                raise InputError(
                    f"line {self._lines.number} has a space before an opening quote, so the quotes would be part of "
                    f"the text",
                    where=place(self._path, self._number),
                    fix="Remove the spaces between the separator and the quote",
                )
            yield line

    def _record(self, line: int | None = None) -> list[str] | None:
        """Read the next row's cells; None at the end. It begins in the next line, or in `line`."""
        self._begun = line or self._lines.number + 1
        self._number += 1
        try:
            return next(self._cells, None)
        except csv.Error as error:
            raise self._broken(str(error)) from error

    def _broken(self, message: str) -> InputError:
        if "field limit" in message:
            return too_long(self._path, self._number, "Check its quotes: a cell that begins with one must end with one")
        begun, line = self._begun, self._lines.number
        span = f"line {begun}" if begun == line else f"lines {begun} to {line}"
        if "end of data" in message:
            what = f"a quoted cell of the row that begins on line {begun} is not closed"
            fix = f"Close the quote; double a quote inside a quoted cell. {_CUT}"
        elif "new-line" in message:
            what = f"{span}: a lone carriage return, as in the line endings of old Mac files"
            fix = f"Run `tr '\\r' '\\n' < {self._path.name} > unix-{self._path.name}`, and use that file"
        else:
            what = f"bad quotes in {span}: text follows a closing quote"
            fix = "Double a quote inside a quoted cell, and put the whole cell in quotes"
        return InputError(what, where=place(self._path, self._number), fix=fix)

    def _checked_header(self, cells: list[str] | None) -> list[str]:
        names = [cell.strip() for cell in cells or []]
        where = place(self._path, self._number)
        if self._delimiter == "|" and names[:1] == names[-1:] == [""]:
            fix = "Write it as CSV, without the outer bars and the line of dashes"
            raise InputError("this is a Markdown table", where=where, fix=fix)
        if names[:1] == [""] and len(names) > 1 and "" not in names[1:]:
            # The index of pandas or the row names of R, under the name that pandas reads it by.
            names[0] = "Unnamed: 0"
        if "" in names or not names:
            at = names.index("") + 1 if names else 1
            raise InputError(f"column {at} of the header has no name", where=where, fix="Name every column")
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"two columns are named '{twice[:60]}'", where=where, fix="Give each column a unique name")
        return names

    def _require_separator(self, header: str, below: str) -> None:
        """Refuse a header of one name that another character divides into as many cells as the row below it."""
        for one in _RARE:
            count = len(_cells(header, one))
            if 1 < count == len(_cells(below, one)):
                shown = one if one.isprintable() else f"U+{ord(one):04X}"
                raise InputError(
                    f"the header has one name, but '{shown}' seems to separate its {count} columns",
                    where=place(self._path, self._number),
                    fix=f"Put the line `sep={one if one.isprintable() else '<that character>'}` before the header, or "
                    f"separate the columns with commas",
                )

    def _uneven(self, cells: list[str]) -> InputError:
        names = self._header
        shown = ", ".join(name[:60] for name in names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
        count = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
        between = _SEPARATORS.get(self._delimiter, f"'{self._delimiter}'")
        fix = f"Put cells that contain {between} or line breaks in double quotes, and give every column a cell"
        if self._lines.at_end and len(cells) < len(names):
            fix = _CUT
        elif len(names) == 1 and not self._rows_before:
            fix += f". If '{names[0][:60]}' is a title, remove that line: the first line must hold the column names"
        return InputError(
            f"the row has {count}, the header has {len(names)}: {shown}",
            where=place(self._path, self._number),
            fix=fix,
        )

    def _value(self, cell: str, name: str) -> Any:
        text = cell.strip()
        if name in _TEXT_OR_MESSAGES:
            return _messages(text) or cell
        if not text:
            return cell
        try:
            value = DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            if text[:1] not in "[{":
                raise self._no_list(name, text) from error
            bad_json(error, text, self._path, self._number, 1, field=name)
        if not isinstance(value, list):
            raise self._no_list(name, text)
        checked({name: value}, text, self._path, self._number)
        return value

    def _no_list(self, name: str, text: str) -> InputError:
        return InputError(
            f"expected a JSON list, got: {text[:60]}",
            where=place(self._path, self._number, name),
            fix='Write it as [{"role": "user", "content": "..."}, ...], or rename the column',
        )


def _messages(text: str) -> list[Any] | dict[str, Any] | None:
    """Messages written as JSON; None for every other text, since an answer may well be JSON itself."""
    if not (text.startswith(("[{", "[ {", "{")) and text.endswith(("]", "}"))):
        return None
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    found = value if isinstance(value, list) else [value]
    return value if found and all(map(_is_message, found)) else None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _delimiter(header: str, below: str, tabs: bool) -> str:
    """What separates the columns: what the header holds; of several, what gives the row below as many cells."""
    ordered = ["\t", ",", ";", "|"] if tabs else [",", ";", "\t", "|"]
    found = [one for one in ordered if len(_cells(header, one)) > 1]
    if len(found) > 1:
        alike = [one for one in found if len(_cells(header, one)) == len(_cells(below, one))]
        found = alike or found
    return found[0] if found else ordered[0]


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a carriage return within it, or a cell that is too long: told where the row is read
        return []


def _peeked(stream: IO[bytes]) -> str:
    """The next line that is not blank, as far as it lies in the stream's buffer; "" where nothing can be told."""
    ahead = stream.peek() if isinstance(stream, io.BufferedReader) else b""
    return next((line for line in ahead.decode("utf-8", "replace").splitlines() if line.strip()), "")
