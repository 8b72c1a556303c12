"""Rows that a trainer indexes as if all of them were in memory: each is read and becomes tokens when it is asked for.

So shuffling, updates, ranks and a run that goes on are those of any other run. Every row was understood before (that is
what `shards` is for), but only its tokens tell whether it can be masked and is within the limit. One that cannot be
used is left out as `data.truncation` says, or named and counted; the next usable row takes its place, on every rank the
same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from studio.data.files.datafiles import place
from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.data.prepare.compact import largest_id
from studio.data.prepare.tokencache import made_by
from studio.data.prepare.units import Encoded, Unit, encode
from studio.data.sources.held import in_blocks
from studio.data.sources.parsing import SHOWN_ERRORS, raise_all
from studio.data.streaming.shards import How, Shard
from studio.data.streaming.store import TokenStore
from studio.errors import InputError

# So many rows behind each other that cannot be used are no exception among good ones.
_MOST_UNUSABLE = 1000
_ITERATED = 256  # rows that are made tokens at a time where all are gone through


class RowPool:
    """All rows of a run's sources by one number, from 0, as tokens.

    Args:
        sources: of each how its rows are read, and its shards.
        masker: makes tokens.

    Attributes:
        count: of all rows.
        path: of the first source, for errors.
        problems: how many rows had no usable tokens so far.
        cut, left_out: how many of them were over the limit, and shortened or left out for it.
        tell: called with the sentence about each of them.
        vocabulary: rows of the model's embedding; None while it is not known.
    """

    def __init__(self, sources: Sequence[tuple[How, Sequence[Shard]]], masker: Masker) -> None:
        self._masker = masker
        self._shards = [(how, shard) for how, shards in sources for shard in shards]
        self._starts, count = [], 0
        for _, shard in self._shards:
            self._starts.append(count)
            count += shard.count
        self.count, self.path = count, self._shards[0][0].path
        name = f"tokens-{made_by(masker, 'answers').hexdigest()[:32]}"
        self._stores = [TokenStore(shard.folder / name, shard.count) for _, shard in self._shards]
        self._noted = bytearray(count)
        self.problems = self.cut = self.left_out = 0
        self.tell: Callable[[str], None] = lambda sentence: None
        self.vocabulary: int | None = None

    def size(self, number: int) -> int:
        """Characters of a row."""
        at = bisect_right(self._starts, number) - 1
        return int(self._shards[at][1].sizes[number - self._starts[at]])

    def characters(self, numbers: Any) -> int:
        """Return how many characters some rows have together; a row counts as often as it is there.

        Args:
            numbers: (N,) numpy array of whole numbers.
        """
        import numpy as np

        ordered = np.sort(numbers)
        ends = np.searchsorted(ordered, [*self._starts, self.count])
        parts = zip(self._shards, self._starts, ends, ends[1:], strict=False)
        return sum(int(shard.sizes[ordered[begin:end] - start].sum()) for (_, shard), start, begin, end in parts)

    def units(self, numbers: Sequence[int]) -> list[Unit | InputError]:
        """Return rows as tokens, before any cut; for one that cannot be used the reason.

        Raises:
            InputError: a file is not what it was.
        """
        found: list[Unit | InputError | None] = [None] * len(numbers)
        wanted: dict[int, list[tuple[int, int]]] = {}  # of each shard: places in it, and in `numbers`
        for i, number in enumerate(numbers):
            at = bisect_right(self._starts, number) - 1
            within = number - self._starts[at]
            how, shard = self._shards[at]
            found[i] = self._stores[at].read(within, shard.number(within), how.path.name)
            if found[i] is None:
                wanted.setdefault(at, []).append((within, i))
        for at, places in wanted.items():
            made = self._all_made(at, [within for within, _ in places])
            for (_, i), unit in zip(places, made, strict=True):
                found[i] = unit
        return [self._within_vocabulary(one) for one in found if one is not None]

    def _all_made(self, at: int, places: Sequence[int]) -> Iterator[Unit | InputError]:
        """The tokens of some rows of a shard, not too much text at a time."""
        sizes = self._shards[at][1].sizes
        for some in in_blocks(places, lambda place: int(sizes[place])):
            yield from self._made(at, some)

    def _made(self, at: int, places: Sequence[int]) -> list[Unit | InputError]:
        """Make the tokens of some rows of a shard, and keep them."""
        how, shard = self._shards[at]
        rows = shard.rows(places)
        made: list[Unit | InputError] = []
        examples = [
            how.reading.example(row, shard.number(place), how.format) for place, row in zip(places, rows, strict=True)
        ]
        try:
            made += encode("answers", examples, self._masker)
        except InputError:
            made = [self._one(example) for example in examples]
        good = [(place, unit) for place, unit in zip(places, made, strict=True) if isinstance(unit, Encoded)]
        self._stores[at].write([place for place, _ in good], [unit for _, unit in good])
        return made

    def _one(self, example: Example) -> Unit | InputError:
        try:
            return encode("answers", [example], self._masker)[0]
        except InputError as error:
            return error

    def _within_vocabulary(self, unit: Unit | InputError) -> Unit | InputError:
        if self.vocabulary is None or isinstance(unit, InputError) or (most := largest_id(unit)) < self.vocabulary:
            return unit
        return InputError(
            f"token {most:,} of the row has no row in the model's embedding of {self.vocabulary:,}",
            where=place(unit.path, unit.row), fix="Use the tokenizer that was saved with the model",
        )  # fmt: skip

    def note(self, number: int, what: InputError | None = None, cut: bool = False) -> None:
        """Count a row that is not used as it is, once.

        Args:
            number: of the row in the pool.
            what: why it cannot be used, which is told; None where it is over the limit.
            cut: it is used, but cut.
        """
        if self._noted[number]:
            return
        self._noted[number] = 1
        if what is not None:
            self.problems += 1
            self.tell(what.sentence)
        elif cut:
            self.cut += 1
        else:
            self.left_out += 1

    def close(self) -> None:
        """Let another process keep tokens."""
        for store in self._stores:
            store.close()


def within(unit: Unit, limit: int, cuts: bool) -> Any:
    """Return a row within a limit; None where it is left out.

    Args:
        unit: before any cut.
        limit: tokens of a row at most.
        cuts: whether a longer row is cut.
    """
    return unit if unit.length <= limit else unit.cut(limit) if cuts else None


class StreamedRows(Sequence[Any]):
    """Some rows of a pool in the order of the run, within its limit.

    Args:
        pool: of all rows.
        numbers: (N,) numpy array of whole numbers, which rows these are.
        limit: tokens of a row at most.
        cuts: whether a longer row is cut; it is left out otherwise.
    """

    def __init__(self, pool: RowPool, numbers: Any, limit: int, cuts: bool) -> None:
        self.pool, self._numbers, self._limit, self._cuts = pool, numbers, limit, cuts

    def __len__(self) -> int:
        """How many there are."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        """Yield them in order."""
        for start in range(0, len(self), _ITERATED):
            yield from self.fetch(range(start, min(len(self), start + _ITERATED)))

    def __getitem__(self, at: Any) -> Any:
        """Return the row at a place, or the rows of a slice."""
        if isinstance(at, slice):
            return self.fetch(range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self.fetch([at % len(self)])[0]

    def fetch(self, places: Sequence[int]) -> list[Encoded]:
        """Return the rows at some places from 0; the next usable row stands for one that cannot be used.

        Raises:
            InputError: a file is not what it was, or too many consecutive rows cannot be used.
        """
        wanted = [int(place) for place in places]
        rows = [self._kept(place, unit) for place, unit in zip(wanted, self._units(wanted), strict=True)]
        return [self._next(place) if row is None else row for place, row in zip(wanted, rows, strict=True)]

    def look(self, places: Sequence[int]) -> list[Unit]:
        """Return rows before any cut; a run begins with such a look, which refuses them as a run without streaming.

        Raises:
            InputError: a row cannot be used.
            InputErrors: several; the first five are named.
        """
        found = self._units([int(place) for place in places])
        errors = [one for one in found if isinstance(one, InputError)]
        if errors:
            raise_all(errors[:SHOWN_ERRORS], len(errors), self.pool.path)
        return [one for one in found if not isinstance(one, InputError)]

    def characters(self, places: Sequence[int]) -> list[int]:
        """Return how many characters the rows at some places have."""
        return [self.pool.size(int(self._numbers[place])) for place in places]

    def within(self, unit: Unit) -> Any:
        """Return a row within the limit; None where it is left out."""
        return within(unit, self._limit, self._cuts)

    def _units(self, places: Sequence[int]) -> list[Unit | InputError]:
        return self.pool.units([int(self._numbers[place]) for place in places])

    def _kept(self, place: int, unit: Unit | InputError) -> Any:
        """A row within the limit; None where it cannot be used, which is counted."""
        if isinstance(unit, InputError):
            self.pool.note(int(self._numbers[place]), unit)
            return None
        row = self.within(unit)
        if row is not unit:
            self.pool.note(int(self._numbers[place]), cut=row is not None)
        return row

    def _next(self, place: int) -> Any:
        for step in range(1, min(len(self), _MOST_UNUSABLE + 1)):
            at = (place + step) % len(self)
            row = self._kept(at, self._units([at])[0])
            if row is not None:
                return row
        raise InputError(
            f"{_MOST_UNUSABLE:,} consecutive rows cannot be used", where=self.pool.path.name,
            fix="Raise data.max_length, or look at the rows in the Data tab",
        )  # fmt: skip
