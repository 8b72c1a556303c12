"""Rows of tokens as a dataset that TRL's collators take: Arrow columns, filled a thousand rows at a time, or a stream.

`Dataset.from_dict` wants all rows as Python's lists at once, which is 36 bytes a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from studio.data.prepare.units import Encoded
from studio.data.streaming.rows import StreamedRows

_ROWS = 1000


def token_dataset(flags: dict[str, list[bool]] | None = None, **tokens: Iterable[Sequence[int]]) -> Dataset:
    """Return rows as a dataset.

    Args:
        flags: columns with a truth value for each row.
        tokens: columns with a list of ids, labels or mask values for each row; iterated once.
    """
    columns = {name: _column(rows) for name, rows in tokens.items()}
    columns |= {name: pa.chunked_array([pa.array(values, pa.bool_())]) for name, values in (flags or {}).items()}
    return Dataset(InMemoryTable(pa.table(columns)))


def _column(rows: Iterable[Sequence[int]]) -> pa.ChunkedArray:
    kind = pa.list_(pa.int32())
    left = iter(rows)
    chunks = []
    while some := list(itertools.islice(left, _ROWS)):
        chunks.append(pa.array(some, kind))
    return pa.chunked_array(chunks, kind)


class StreamedDataset(Dataset):
    """Rows of a stream, which are read when a loader asks for them. TRL takes no dataset of another class."""

    def __init__(self, rows: StreamedRows) -> None:
        empty = pa.nulls(len(rows))  # takes no memory, whatever its length
        super().__init__(InMemoryTable(pa.table({"input_ids": empty, "labels": empty})))
        self._rows = rows

    def __getitem__(self, at: Any) -> Any:
        """Return one row."""
        return _values(self._rows[at])

    def __getitems__(self, places: list[int]) -> list[dict[str, list[int]]]:
        """Return the rows of an update."""
        return [_values(row) for row in self._rows.fetch(places)]

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        """Yield all rows in order."""
        return map(_values, self._rows)


def _values(row: Encoded) -> dict[str, list[int]]:
    return {"input_ids": row.input_ids, "labels": row.labels}
