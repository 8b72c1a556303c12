"""Writing rows as JSONL or Parquet, some hundreds at a time; a file is whole once it is closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from studio.data.files.datafiles import Row
from studio.errors import InputError

_GROUP_ROWS = 1000


class Writer(Protocol):
    """Takes rows one by one.

    Attributes:
        path: the file.
        rows: rows taken.
    """

    path: Path
    rows: int

    def add(self, row: Row) -> None:
        """Take a row."""

    def close(self) -> None:
        """Finish the file."""


def writer_for(path: Path) -> Writer:
    """Return a writer of the format that the name says."""
    return ParquetWriter(path) if path.suffix == ".parquet" else LineWriter(path)


class LineWriter:
    """JSONL in UTF-8."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._file = path.open("x", encoding="utf-8", newline="\n")

    def add(self, row: Row) -> None:
        """Write a line."""
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ParquetWriter:
    """Parquet with the columns of the first thousand rows; a row that does not fit them is refused, never cut."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._waiting: list[Row] = []
        self._file: Any = None

    def add(self, row: Row) -> None:
        """Take a row; it is written with others.

        Raises:
            InputError: the rows do not have the same columns and types.
        """
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left and finish the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        try:
            table = pa.Table.from_pylist(self._waiting, schema=self._file.schema if self._file else None)
        except pa.ArrowException as error:
            raise self._uneven(str(error).splitlines()[0]) from error
        # from_pylist leaves out keys that its columns lack, without a word.
        if table.to_pylist() != [
            _filled(row, kept) for row, kept in zip(self._waiting, table.to_pylist(), strict=True)
        ]:
            raise self._uneven("a row has a key that the first rows do not have")
        if self._file is None:
            self._file = pq.ParquetWriter(self.path, table.schema)
        self._file.write_table(table)
        self._waiting = []

    def _uneven(self, why: str) -> InputError:
        first = self.rows - len(self._waiting) + 1
        return InputError(
            f"rows {first:,} to {self.rows:,} do not have the same columns as the rows before: {why}",
            where=self.path.name,
            fix="Write JSONL instead",
        )


def _filled(value: Any, kept: Any) -> Any:
    """A value with null for the keys that only other rows have, as a table holds it."""
    if isinstance(value, dict) and isinstance(kept, dict):
        return {**dict.fromkeys(kept), **{key: _filled(one, kept.get(key)) for key, one in value.items()}}
    if isinstance(value, list) and isinstance(kept, list) and len(value) == len(kept):
        return [_filled(one, other) for one, other in zip(value, kept, strict=True)]
    return value
