"""Rows of tokens as a dataset that TRL's collators take: Arrow columns, filled a thousand rows at a time.

`Dataset.from_dict` wants all rows as Python's lists at once, which is 36 bytes a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

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
