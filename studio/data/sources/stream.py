"""The rows of a run's sources one after the other, each understood or with the reason why not.

Nothing is held: what looks at a whole set (`profile`, `keep`) takes what it needs of a row and lets it go. A sample
reads the rows it has drawn and no others where the file has one row a line.
"""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import Row, read_rows
from studio.data.formats.answers import Example, FormatName
from studio.data.report import Place
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.sources.locate import Located, locate, sources_of, still_written
from studio.data.sources.reading import Reading
from studio.errors import InputError
from studio.methods import RowKind
from studio.reach import opened
from studio.settings import Settings

Part = Literal["train", "validation"]
_CHUNK_BYTES = 128 * 1024
# Without lines to count, a sample is drawn from the rows that can be read in about a second.
_SAMPLED_FROM = 20_000


@dataclass(frozen=True)
class Read:
    """One row: `example` if it can be used, else `error`, with the sentence that a run would stop with."""

    place: Place
    raw: Row
    example: Example | None
    error: InputError | None


@dataclass(frozen=True)
class Source:
    """One of a run's sources, with its rows and their format."""

    index: int
    config: DataSource
    part: Part
    located: Located
    reading: Reading
    format: FormatName


@dataclass(frozen=True)
class Sample:
    """The rows drawn, each as (place from 1, number, row); `total` is None where the file was not read whole."""

    rows: list[tuple[int, int, Row]]
    total: int | None


def source_at(config: DataConfig, index: int) -> DataSource:
    """Return the source that `Place.source` counts so.

    Raises:
        InputError: there is none.
    """
    sources = sources_of(config)
    if not 0 <= index < len(sources):
        raise InputError(f"there is no source {index}", where="data.train", fix="Choose one of the files")
    return sources[index]


def open_sources(
    config: DataConfig, settings: Settings, kind: RowKind, confined: bool = False, turns: bool = False
) -> list[Source]:
    """Find the sources and the formats of their rows.

    With `turns`, plain questions and answers are conversations where a source leaves it to the model (`in_turns`).

    Args:
        config: section `data`.
        settings: home and readable folders.
        kind: what the method learns from.
        confined: refuse files outside the readable folders, as the page does.
        turns: from `in_turns`, for sources that leave it to the model.

    Raises:
        InputError: a source is not here or cannot be read, or no format has the keys of its first row.
    """
    found = []
    for index, one in enumerate(sources_of(config)):
        located = locate(one, settings, confined)
        reading = Reading(one, located, kind, turns)
        name, _ = reading.format(list(itertools.islice(located.rows(0), 1)))
        part: Part = "train" if index < len(config.train) else "validation"
        found.append(Source(index, one, part, located, reading, name))
    return found


def read_source(source: Source) -> Iterator[Read]:
    """Yield every row of a source.

    Raises:
        InputError: the file is not what it should be from some row on.
    """
    for at, (number, row) in enumerate(source.located.rows(0), 1):
        yield understood(source, at, number, row)


def understood(source: Source, at: int, number: int, row: Row) -> Read:
    """Return a row with what it means, or why it cannot be used.

    Args:
        source: an opened one.
        at: place in the source, from 0.
        number: of the row in its file, from 1.
        row: as it is stored.

    Raises:
        OutOfBoundsError: a line over columns takes too much time or memory; the next rows' would too.
    """
    place = Place(source.index, source.config.path, number, at)
    try:
        return Read(place, row, source.reading.example(row, number, source.format), None)
    except OutOfBoundsError:
        raise
    except InputError as error:
        return Read(place, row, None, error)


def draw(located: Located, count: int, seed: int, on_rows: Callable[[], None] = lambda: None) -> Sample:
    """Draw rows of a source, the same for the same seed, in the order of the file.

    A JSONL file is counted by its line ends and only the drawn lines are read. Of any other the rows are drawn among
    the first 20,000, and so they are where a drawn line turns out to be no row by itself (blanks, another encoding).

    Args:
        located: the source.
        count: rows wanted; all of them if there are fewer.
        seed: of the draw.
        on_rows: called now and then; what it raises ends the work.

    Raises:
        InputError: a drawn row cannot be read, or the file changes meanwhile.
    """
    file = located.files[0]
    lines = _count_lines(file, on_rows) if file == located.path else None
    if lines is not None:
        starts, total = lines
        wanted = sorted(random.Random(seed).sample(range(total), min(count, total)))
        if (rows := _read_lines(file, starts, wanted, on_rows)) is not None:
            return Sample(rows, total)
    head = list(enumerate(itertools.islice(located.rows(0), _SAMPLED_FROM + 1), 1))
    rest = len(head) > _SAMPLED_FROM
    drawn = sorted(random.Random(seed).sample(head[:_SAMPLED_FROM], min(count, len(head[:_SAMPLED_FROM]))))
    return Sample([(at, number, row) for at, (number, row) in drawn], None if rest else len(head))


def _count_lines(file: Path, on_rows: Callable[[], None]) -> tuple[list[int], int] | None:
    """Line ends before each chunk of the file, and lines in all; None if a line is not a row."""
    if file.suffix not in (".jsonl", ".ndjson"):
        return None
    before, count, tail = [], 0, b"\n"
    with opened(file) as lines:
        try:
            _line_as_row(lines.readline(_CHUNK_BYTES))
        except (ValueError, RecursionError):
            return None
        if not lines.read(1):
            return None  # the only line may hold all rows: {"data": [...]}
        lines.seek(0)
        while chunk := lines.read(_CHUNK_BYTES):
            seam = tail + chunk
            if b"\n\n" in seam or b"\n\r\n" in seam:
                return None
            before.append(count)
            count += chunk.count(b"\n")
            tail = chunk[-2:]
            if len(before) % 1000 == 0:
                on_rows()
    return before, count + (not tail.endswith(b"\n"))


def _read_lines(
    file: Path, before: list[int], wanted: list[int], on_rows: Callable[[], None]
) -> list[tuple[int, int, Row]] | None:
    """The wanted lines as rows; None where one of them is no row, though the file can be read."""
    rows: list[tuple[int, int, Row]] = []
    with opened(file) as lines:
        for done, line in enumerate(wanted):
            chunk = max(0, bisect.bisect_right(before, line - 1) - 1)
            start = chunk * _CHUNK_BYTES
            lines.seek(start)
            if line:
                text, end = lines.read(_CHUNK_BYTES), -1
                for _ in range(line - before[chunk]):
                    end = text.find(b"\n", end + 1)
                    if end < 0:  # it was there when the lines were counted
                        raise still_written(file)
                lines.seek(start + end + 1)
            if not (content := lines.readline()):
                raise still_written(file)
            try:
                row = _line_as_row(content)
            except (ValueError, RecursionError):
                # The reader of whole files has the sentence for whatever it is, or can read it.
                for _ in read_rows(file):
                    pass
                return None
            rows.append((line + 1, line + 1, row))
            if done % 100 == 0:
                on_rows()
    return rows


def _line_as_row(line: bytes) -> Row:
    row = json.loads(line.removeprefix(b"\xef\xbb\xbf"), parse_constant=_refuse)
    if not isinstance(row, dict):
        raise ValueError("the line is not an object")
    if b"\\ud" in line.lower():
        json.dumps(row, ensure_ascii=False).encode()  # refuses half of a character
    return row


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
