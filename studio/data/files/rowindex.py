"""Any row of a file at once: where its rows lie, found in one pass and kept.

A file of text gets a mark every 256 KB: rows before it, bytes, lines. A row is then read from the mark before it, so
one of 2 GB costs as little as one of 2 MB. Parquet and Arrow know how many rows each of their parts has. In an
archive the way to the mark must be unpacked again. Marks are kept in memory and under STUDIO_HOME/cache/rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.data.files.datafiles import Row, Stamp, no_rows, open_reader, place, reading
from studio.data.readers.columnar import columnar_count, columnar_rows
from studio.data.readers.kinds import FileKind, data_files, kind_of_file
from studio.data.readers.row import Mark, RowNumber
from studio.errors import InputError
from studio.settings import Settings

# (phase, bytes read, bytes in all or None for an archive); what it raises ends the pass.
OnBytes = Callable[[str, float, float | None], None]
STEP_BYTES = 1 << 18
# Smaller files are indexed again sooner than their index is found.
KEPT_FROM_BYTES = 8 << 20
_KEPT_FILES = 256
_VERSION = 1


@dataclass
class FileIndex:
    """Where the rows of one file lie.

    Attributes:
        path, stamp: the file, as it was indexed.
        count: how many rows can be read.
        marks: (rows before it, mark) in order; empty for Parquet and Arrow.
        problem: what ended the pass before the end of the file, else None.
        by_line: whether each line of a plain text file is a row.
    """

    path: Path
    stamp: Stamp
    count: int
    marks: list[tuple[int, Mark]] = field(default_factory=list)
    problem: InputError | None = None
    by_line: bool = False

    def rows_from(self, start: int) -> Iterator[tuple[int, Row]]:
        """Yield (number, row) from the row at place `start` (from 0) on.

        Raises:
            InputError: a row cannot be read; one before `start` does not matter.
        """
        with reading(self.path):
            file_kind = kind_of_file(self.path)
            if file_kind.columnar:
                yield from columnar_rows(self.path, file_kind, start)
                return
            before, mark = self.marks[bisect_right(self.marks, start, key=lambda one: one[0]) - 1]
            with open_reader(self.path, file_kind, self.by_line) as reader:
                reader.move_to(mark)
                for _ in itertools.islice(reader.skim(), start - before):
                    pass
                yield from reader.rows()


class RowIndex:
    """Where the rows of a file, or of a folder's files one after the other, lie."""

    def __init__(self, path: Path, files: list[FileIndex]) -> None:
        self.path, self.files = path, files

    @property
    def count(self) -> int:
        """How many rows can be read."""
        return sum(one.count for one in self.files)

    def row(self, at: int) -> tuple[int, Row]:
        """Return (number, row) of the row at place `at`, from 1.

        Raises:
            InputError: there is no such row, or it cannot be read.
        """
        left = at - 1
        for one in self.files:
            if 0 <= left < one.count:
                number, row = next(one.rows_from(left))
                return (RowNumber(number, one.path) if self.path.is_dir() else number), row
            if left >= 0 and one.problem is not None:
                raise one.problem
            left -= one.count
        raise InputError(
            f"there is no row {at}; the {'folder' if self.path.is_dir() else 'file'} has {self.count:,}",
            where=place(self.path),
            fix="Choose a row number from 1",
        )


def row_index(path: Path, settings: Settings, on_bytes: OnBytes | None = None, by_line: bool = False) -> RowIndex:
    """Return the index of a file or folder: the kept one if nothing has changed, else a new one.

    Args:
        path: the file or folder.
        settings: under whose `home` large indexes are kept.
        on_bytes: told some times a second how far the pass is; it ends the pass by raising.
        by_line: each line of a plain text file is a row.

    Raises:
        InputError: no row can be read.
    """
    files = data_files(path) if path.is_dir() else [path]
    tell = on_bytes or (lambda name, done, total: None)
    return RowIndex(path, [_file_index(file, settings, tell, by_line) for file in files])


def _file_index(path: Path, settings: Settings, on_bytes: OnBytes, by_line: bool) -> FileIndex:
    with reading(path):
        return _kept_or_made(path, settings, on_bytes, by_line)


def _kept_or_made(path: Path, settings: Settings, on_bytes: OnBytes, by_line: bool) -> FileIndex:
    stamp = Stamp.of(path)
    kept = settings.home / "cache" / "rows" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    if stamp.size >= KEPT_FROM_BYTES and (found := _read_kept(kept, path, stamp, by_line)) is not None:
        return found
    file_kind = kind_of_file(path)
    made = (
        FileIndex(path, stamp, columnar_count(path, file_kind))
        if file_kind.columnar
        else _index_text(path, stamp, file_kind, on_bytes, by_line)
    )
    if not made.count:
        raise made.problem or no_rows(path, file_kind)
    if stamp.size >= KEPT_FROM_BYTES and made.problem is None:
        _keep(kept, made)
    return made


def _index_text(path: Path, stamp: Stamp, file_kind: FileKind, on_bytes: OnBytes, by_line: bool) -> FileIndex:
    made = FileIndex(path, stamp, 0, [(0, Mark())], by_line=by_line)
    total = stamp.size if file_kind.packing is None else None
    with open_reader(path, file_kind, by_line) as reader:
        due = STEP_BYTES
        told = 0
        try:
            for made.count, _ in enumerate(reader.skim(), 1):
                if reader.position >= due:
                    made.marks.append((made.count, reader.mark()))
                    due = reader.position + STEP_BYTES
                    if reader.position - told >= 32 * STEP_BYTES:
                        told = reader.position
                        on_bytes("indexing rows", told, total)
        except InputError as error:
            made.problem = error
    return made


def _read_kept(kept: Path, path: Path, stamp: Stamp, by_line: bool) -> FileIndex | None:
    try:
        values = json.loads(kept.read_text(encoding="utf-8"))
        if values["about"] != _about(path, stamp, by_line):
            return None
        marks = [(before, Mark(*mark)) for before, *mark in values["marks"]]
        return FileIndex(path, stamp, values["count"], marks, by_line=by_line)
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or of another version, or cut off: it is made again.
        return None


def _keep(kept: Path, made: FileIndex) -> None:
    """Write an index whole or not at all; the oldest make room."""
    values = {
        "about": _about(made.path, made.stamp, made.by_line),
        "count": made.count,
        "marks": [[before, *mark] for before, mark in made.marks],
    }
    new = kept.with_suffix(f".{os.getpid()}")
    # A full disk must not keep a row from being seen; the next worker makes the pass again.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_text(json.dumps(values), encoding="utf-8")
            os.replace(new, kept)
        finally:
            new.unlink(missing_ok=True)
        for old in sorted(kept.parent.glob("*.json"), key=lambda one: one.stat().st_mtime)[:-_KEPT_FILES]:
            old.unlink(missing_ok=True)


def _about(path: Path, stamp: Stamp, by_line: bool) -> list[object]:
    return [_VERSION, str(path.resolve()), stamp.size, stamp.mtime_ns, by_line]
