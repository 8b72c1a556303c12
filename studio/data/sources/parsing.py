"""The rows of one source, understood: those that are wanted, in order, with all that cannot be used named at once.

`OpenedSource` gives them as they are read and holds none; `parse_source` holds them compressed, for a run that looks
at all of them before it makes tokens.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.config.data import DataSource
from studio.data.formats.answers import Example
from studio.data.report import SourceReport
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.sources.held import HeldExamples
from studio.data.sources.locate import Located, still_written
from studio.data.sources.mixing import choose_rows
from studio.data.sources.reading import Reading
from studio.errors import InputError, InputErrors
from studio.methods import RowKind

Part = Literal["train", "validation"]
SHOWN_ERRORS = 5


@dataclass
class Parsed:
    """A file's rows, understood."""

    source: SourceReport
    examples: HeldExamples


def parse_source(
    source: DataSource,
    located: Located,
    part: Part,
    on_rows: Callable[[int], None] | None = None,
    kind: RowKind = "answers",
    rng: random.Random | None = None,
    turns: bool = False,
) -> Parsed:
    """Read a source and understand its rows.

    Args:
        source: as the configuration gives it.
        located: where it is.
        part: "train" or "validation".
        on_rows: told how many rows are read.
        kind: what the method learns from.
        rng: chooses the rows where only some are wanted; None to read all.
        turns: whether plain questions and answers are conversations, as the model has it (`in_turns`).

    Raises:
        InputError: the file or one of its rows cannot be used.
        InputErrors: several rows cannot be used; the first five are named.
    """
    opened = OpenedSource(source, located, kind, rng, turns)
    examples = HeldExamples(opened.examples(on_rows))
    if on_rows:
        on_rows(len(examples))
    return Parsed(opened.report(part), examples)


class OpenedSource:
    """A source whose rows are understood as they are read.

    Args:
        source, located, kind, rng, turns: as `parse_source` has them.

    Attributes:
        count: how many rows were understood so far.
        bad: how many cannot be used.
        total: how many there will be; None where that is not known yet.

    Raises:
        InputError: no row can be read, or no format has the keys of the first one.
    """

    def __init__(
        self,
        source: DataSource,
        located: Located,
        kind: RowKind,
        rng: random.Random | None = None,
        turns: bool = False,
    ) -> None:
        self._source, self._located = source, located
        self._state = located.state()
        wanted = (source.rows or located.sample) if rng else None
        self._have: int | None = None
        places: set[int] | None = None
        if rng and wanted:
            self._have, places = _choice(located, wanted, rng)
        rows = located.rows(0)
        if places is not None:
            rows = (one for at, one in enumerate(rows) if at in places)
        first = list(itertools.islice(rows, 1))
        self._rows = itertools.chain(first, rows)
        self._reading = Reading(source, located, kind, turns)
        self._format, self._reason = self._reading.format(first)
        self.count = self.bad = 0
        self.total = located.count if places is None else len(places)

    def examples(self, on_rows: Callable[[int], None] | None = None) -> Iterator[Example]:
        """Yield the rows up to the first that cannot be used; the rest is read then to count the others of its kind.

        Raises:
            InputError: a row cannot be used.
            InputErrors: several; the first five are named.
            OutOfBoundsError: a line over columns takes too much time or memory.
        """
        errors: list[InputError] = []
        for read, (number, row) in enumerate(self._rows, 1):
            try:
                example = self._reading.example(row, number, self._format)
            except OutOfBoundsError:
                raise
            except InputError as error:
                self.bad += 1
                if len(errors) < SHOWN_ERRORS:
                    errors.append(error)
            else:
                self.count += 1
                if not errors:
                    yield example
            if on_rows and read % 1000 == 0:
                on_rows(read)
        if errors:
            raise_all(errors, self.bad, self._located.path)

    def report(self, part: Part) -> SourceReport:
        """Return what is known of the source once its rows are read.

        Raises:
            InputError: its files are others now, so the rows and the digest would not be of the same.
        """
        report = self._report(part)
        if self._located.state() != self._state:
            raise still_written(self._located.path)
        return report

    def _report(self, part: Part) -> SourceReport:
        return SourceReport(
            path=self._source.path,
            file=str(self._located.files[0]),
            part=part,
            sha256=self._located.sha256(),
            bytes=self._located.bytes,
            format=self._format,
            rows=self.count if self._have is None else self._have,
            chosen=self.count,
            commit=self._located.commit,
            reason=self._reason,
            read_as=self._reading.read_as,
        )


def _choice(located: Located, wanted: int, rng: random.Random) -> tuple[int, set[int]]:
    """(rows there are, places from 0 of those that are taken); a file is read once more for it, and not kept."""
    have = located.count if located.count is not None else sum(1 for _ in located.rows(0))
    return have, set(choose_rows(have, wanted, rng))


def raise_all(errors: list[InputError], bad: int, path: Path) -> None:
    """Raise what is wrong with some rows.

    Args:
        errors: the first of them, at least one.
        bad: how many there are.
        path: of the file or folder.
    """
    if len(errors) == 1:
        raise errors[0]
    if bad > len(errors):
        errors.append(InputError(f"{bad - len(errors):,} more rows cannot be used", where=path.name))
    raise InputErrors(errors)
