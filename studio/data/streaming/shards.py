"""One file of a source: gone through once, row by row, and after that any row of it at once.

That pass understands every row, so a bad one is named before anything is loaded, and keeps where each ends: 8 bytes a
row for its place, 4 each for its number and its size, which are memory-mapped. A row of plain JSONL is read from the
file itself. Of other kinds (Parquet decodes whole groups of rows, an archive can only be read from its start) the rows
are copied as JSONL beside the index. Both lie under STUDIO_HOME/cache/streams, by file, its state, and how it is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from studio.data.files.datafiles import Row, file_sha256, no_rows, open_reader, place, reading
from studio.data.files.hubsets import read_arrow
from studio.data.formats.answers import FormatName, Unread
from studio.data.readers.columnar import columnar_rows
from studio.data.readers.json_rows import JsonLines
from studio.data.readers.kinds import kind_of_file
from studio.data.readers.lines import BOM
from studio.data.readers.row import RowNumber
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.sources.held import characters
from studio.data.sources.locate import still_written
from studio.data.sources.parsing import SHOWN_ERRORS, raise_all
from studio.data.sources.reading import Reading
from studio.errors import InputError, StudioError
from studio.reach import opened

_VERSION = 2
_ABOUT, _ROWS = "about.json", "rows.jsonl"
# name of a file of the index: its numbers as `array` and numpy name them
_NUMBERS = {"ends": ("Q", "<u8"), "numbers": ("I", "<u4"), "sizes": ("I", "<u4")}
_AT_ONCE = 1 << 16  # rows whose numbers are gathered before they are written
_TOLD_EVERY = 2000
# In place of its characters, of a row that cannot be used in a file of which only some rows are taken.
_UNUSABLE = (1 << 32) - 1
_GIVEN_UP = 7 * 86400  # seconds after which nobody is at work on an index any more


@dataclass(frozen=True)
class How:
    """How the rows of a source are read.

    Attributes:
        reading: maps and understands them.
        format: of the mapped rows.
        key: changes with anything that could make a row mean something else.
        path: of the source, for errors.
        in_folder: its files are those of a folder, and the numbers of their rows know their file.
        hub: its files are the Arrow streams of a set of the Hub.
        by_line: each line of a plain text file is a row.
        some: only some of the rows are taken, which are not known yet: one that cannot be used may be left aside.
    """

    reading: Reading
    format: FormatName
    key: str
    path: Path
    in_folder: bool = False
    hub: bool = False
    by_line: bool = False
    some: bool = False


class Shard:
    """A file that was gone through.

    Attributes:
        folder: of its index; the tokens of its rows lie there too.
        count: rows.
        longest: characters of its longest row.
        sha256: of the file.
        unread: keys that were not read.
        chat: whether its first usable row is a conversation.
        read_as: how its last plain question and answer was read (`Reading.read_as`).
    """

    def __init__(self, file: Path, folder: Path, how: How, before: int) -> None:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        self.file, self.folder, self._how, self._before = file, folder, how, before
        self.count: int = about["count"]
        self.longest: int = about["longest"]
        self.sha256: str = about["sha256"]
        self.chat: bool = about["chat"]
        self.read_as = about["read_as"]
        self.unread = Unread(rated=about["rated"])
        self.unread.counts.update(about["unread"])
        self.unread.lost.update(about["lost"])
        self._state: list[Any] = about["state"]
        self._copied: bool = about["copied"]

    @cached_property
    def _ends(self) -> Any:
        return self._mapped("ends")

    @cached_property
    def _numbers(self) -> Any:
        return self._mapped("numbers")

    @cached_property
    def sizes(self) -> Any:
        """(rows,) characters of each row, memory-mapped."""
        return self._mapped("sizes")

    def _mapped(self, name: str) -> Any:
        import numpy as np

        if not self.count:  # a file of nothing cannot be mapped
            return np.empty(0, dtype=_NUMBERS[name][1])
        return np.memmap(self.folder / name, dtype=_NUMBERS[name][1], mode="r", shape=(self.count,))

    def number(self, at: int) -> int:
        """Return the number of the row at a place from 0, as errors name it."""
        number = int(self._numbers[at]) + (self._before if self._how.hub else 0)
        return RowNumber(number, self.file) if self._how.in_folder else number

    def unusable(self, places: Any) -> Any:
        """Return those of some places whose rows cannot be used; there are none where all rows are taken.

        Args:
            places: (N,) numpy array of whole numbers.
        """
        return places[self.sizes[places] == _UNUSABLE]

    def problem(self, at: int) -> InputError:
        """Return why the row at a place cannot be used."""
        number, (row,) = self.number(at), self.rows([at])
        try:
            self._how.reading.example(row, number, self._how.format)
        except InputError as error:
            return error
        return InputError("the row cannot be used", where=place(self._how.path.name, number), fix="Remove the row")

    def rows(self, places: Sequence[int]) -> list[Row]:
        """Return the rows at some places from 0, as they are stored.

        Raises:
            InputError: the file is gone, or is not what it was when the run began.
        """
        with reading(self.file):
            if self._copied:
                with (self.folder / _ROWS).open("rb") as copy:
                    return [self._row(copy, at) for at in places]
            with opened(self.file) as file:
                self._require_same(self.file.stat())
                return [self._row(file, at) for at in places]

    def _row(self, file: IO[bytes], at: int) -> Row:
        start = int(self._ends[at - 1]) if at else 0
        file.seek(start)
        row: Row = json.loads(file.read(int(self._ends[at]) - start).removeprefix(BOM))
        return row

    def _require_same(self, now: os.stat_result) -> None:
        if _state(now) != self._state:
            raise InputError(
                "the file was changed while the run reads its rows from it", where=str(self.file),
                fix="Put the file back as it was and resume the run, or start a new one",
            )  # fmt: skip


def open_shards(files: Sequence[Path], how: How, home: Path, on_rows: Callable[[int], None]) -> list[Shard]:
    """Return a source's files, of which those are gone through that are new or have changed.

    Args:
        files: in order.
        how: how their rows are read.
        home: folder of the indexes; made if it is not there.
        on_rows: told how many rows were gone through, now and then.

    Raises:
        InputError: a file or one of its rows cannot be used.
        InputErrors: several rows cannot be used; the first five are named.
        StudioError: there is no room for the index.
    """
    home.mkdir(parents=True, exist_ok=True)
    _tidy(home)
    shards: list[Shard] = []
    before = 0
    for file in files:
        folder = home / _key(file, how)
        if not (folder / _ABOUT).is_file():
            done = before
            _build(file, folder, how, before, lambda rows, done=done: on_rows(done + rows))  # type: ignore[misc]
        else:
            os.utime(folder)
        shards.append(Shard(file, folder, how, before))
        before += shards[-1].count
    return shards


def joined_sha256(shards: Sequence[Shard], how: How) -> str:
    """Return the SHA-256 of a source as `Located.sha256` gives it, without reading the files again."""
    digests = [shard.sha256 for shard in shards]
    if how.in_folder:
        listed = "".join(f"{digest}  {shard.file.name}\n" for digest, shard in zip(digests, shards, strict=True))
        return hashlib.sha256(listed.encode()).hexdigest()
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def are_open(files: Sequence[Path], how: How, home: Path) -> bool:
    """Whether `open_shards` would have nothing to go through.

    Args:
        files: of a source.
        how: how their rows are read.
        home: folder of the indexes.
    """
    return all((home / _key(file, how) / _ABOUT).is_file() for file in files)


def _key(file: Path, how: How) -> str:
    with reading(file):
        said = [_VERSION, str(file.resolve()), _state(file.stat()), how.key]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def _state(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns]


def _build(file: Path, folder: Path, how: How, before: int, on_rows: Callable[[int], None]) -> None:
    """Go through a file and leave its index in `folder`, whole or not at all."""
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        state = _state(file.stat())
        try:
            values = _pass(file, new, how, before, on_rows)
            now = _state(file.stat())
        except InputError as error:
            if _state(file.stat()) == state:
                raise
            raise still_written(file) from error
        if now != state:
            raise still_written(file)
        values |= {"state": state, "file": str(file), "sha256": file_sha256(file)}
        (new / _ABOUT).write_text(json.dumps(values), encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was faster: its index is as good
            new.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StudioError(
            "the disk is full: there is no room for the index of the rows", where=str(folder.parent),
            fix="Free some space, or point STUDIO_HOME to another disk",
        ) from error  # fmt: skip
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _pass(file: Path, folder: Path, how: How, before: int, on_rows: Callable[[int], None]) -> dict[str, Any]:
    """Understand every row and write where it ends; returns what `Shard` reads of it."""
    count = longest = bad = 0
    unread, errors = Unread(), list[InputError]()
    copied = chat = False
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in _NUMBERS}
        kept = {name: array(kind) for name, (kind, _) in _NUMBERS.items()}
        copy: IO[bytes] | None = None

        def write() -> None:
            for name, values in kept.items():
                values.tofile(files[name])
                del values[:]

        for count, (number, row, end) in enumerate(_read(file, how), 1):
            if end is None:
                if copy is None:
                    copy, copied = stack.enter_context((folder / _ROWS).open("wb")), True
                copy.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                end = copy.tell()
            shown = RowNumber(number, file) if how.in_folder else number + (before if how.hub else 0)
            try:
                example = how.reading.example(row, shown, how.format)
            except OutOfBoundsError:
                raise
            except InputError as error:
                bad += 1
                errors += [error] if len(errors) < SHOWN_ERRORS else []
                size = _UNUSABLE
            else:
                chat = example.messages is not None if count - bad == 1 else chat
                unread.add(example)
                size = characters(example)
                longest = max(longest, size)
            for name, value in (("ends", end), ("numbers", number), ("sizes", size)):
                kept[name].append(value)
            if count % _AT_ONCE == 0:
                write()
            if count % _TOLD_EVERY == 0:
                on_rows(count)
        write()
    if errors and not how.some:
        raise_all(errors, bad, how.path)
    if not count and not how.hub:  # of a set's files one may have none
        raise no_rows(file, kind_of_file(file))
    on_rows(count)
    return {
        "count": count, "longest": longest, "copied": copied, "unread": dict(unread.counts),
        "lost": dict(unread.lost), "rated": unread.rated, "chat": chat, "read_as": how.reading.read_as,
    }  # fmt: skip


def _read(file: Path, how: How) -> Iterator[tuple[int, Row, int | None]]:
    """Yield (number, row, where its line ends in the file); None for the end where the row is no line of its own."""
    if how.hub:
        yield from ((number, row, None) for number, row in read_arrow((file,)))
        return
    with reading(file):
        kind = kind_of_file(file)
        if kind.columnar:
            yield from ((number, row, None) for number, row in columnar_rows(file, kind))
            return
        with open_reader(file, kind, how.by_line) as reader:
            lines = isinstance(reader, JsonLines) and kind.packing is None
            for number, row in reader.rows():
                yield number, row, reader.position if lines else None


def _tidy(home: Path) -> None:
    """Remove what is kept of files that are gone or have changed, which nobody can use again, and what was given up."""
    for left in home.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _GIVEN_UP:
                shutil.rmtree(left, ignore_errors=True)
    for about in home.glob(f"*/{_ABOUT}"):
        try:
            values = json.loads(about.read_text(encoding="utf-8"))
            if _state(Path(values["file"]).stat()) == values["state"]:
                continue
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(about.parent, ignore_errors=True)
