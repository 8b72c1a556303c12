"""Rows of Parquet and Arrow files: some hundreds at a time, from a memory map.

Nested lists and structs become lists and dicts, maps dicts. Dates and times become ISO 8601 text, decimals text, NaN
(pandas' missing number) null; the nulls that pad the structs of tool calls are left out (`padding`). Bytes are refused
unless they are UTF-8 text, as some writers store it. pyarrow is imported only when such a file is read.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from studio.data.readers.bytestream import open_unpacked
from studio.data.readers.json_text import MAX_DEPTH
from studio.data.readers.kinds import NAMES, FileKind
from studio.data.readers.padding import cleaner_of
from studio.data.readers.row import Row, place
from studio.errors import InputError
from studio.reach import held

_BATCH_ROWS = 256
_BATCH_BYTES = 8 * 1024 * 1024
# Rows that cost less than a thousandth of a byte hold nothing.
_MAX_ROWS_PER_BYTE = 1000
# What the bytes of a damaged file make of pyarrow, beside its own errors (a length that no memory holds, for instance).
_DAMAGE = (OSError, ValueError, TypeError, IndexError, KeyError, RecursionError, MemoryError)
_Batches = Iterator[Any]


def columnar_rows(path: Path, file_kind: FileKind, start: int = 0) -> Iterator[tuple[int, Row]]:
    """Yield (number, row) from the row at place `start` (from 0) on; a row's number is its place from 1.

    Args:
        path: of a Parquet or Arrow file.
        file_kind: what its beginning tells.
        start: Parquet row groups that end before it are not read.

    Raises:
        InputError: the file is damaged, or a value has no form as text or JSON.
    """
    with _opened(path, file_kind) as table:
        number = start
        for batch in table.batches(start):
            yield from _rows_of(batch, path, number)
            number += batch.num_rows


def columnar_count(path: Path, file_kind: FileKind) -> int:
    """Return how many rows the file has; of their content nothing is read.

    Raises:
        InputError: the file is damaged.
    """
    with _opened(path, file_kind) as table:
        count: int = table.count()
        return count


@contextmanager
def _opened(path: Path, file_kind: FileKind) -> Iterator[Any]:
    import pyarrow

    open_table = {"parquet": _Parquet, "arrow": _ArrowFile, "arrow_stream": _ArrowStream}[file_kind.kind]
    try:
        if file_kind.packing is None:
            with held(path) as name, pyarrow.memory_map(name) as source:
                yield open_table(source, path)
        else:
            # Both kinds are read from their end, so an archive is unpacked to a file without a name first.
            with open_unpacked(path) as packed, tempfile.TemporaryFile() as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
                unpacked.seek(0)
                yield open_table(unpacked, path)
    except (pyarrow.ArrowException, *_DAMAGE) as error:
        raise _damaged(path, file_kind, error) from error


def _damaged(path: Path, file_kind: FileKind, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"the {NAMES[file_kind.kind]} file cannot be read: {reason}",
        where=str(path),
        fix="If it is still being written, wait; if it is truncated or damaged, copy or download it again; otherwise "
        "write it again with a recent pyarrow",
    )


class _Parquet:
    def __init__(self, source: IO[bytes], path: Path) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(source, pre_buffer=False)
        _check_schema(self._file.schema_arrow, path)
        size = path.stat().st_size
        if self.count() > _MAX_ROWS_PER_BYTE * size:
            raise InputError(
                f"the file has {self.count():,} rows in {size:,} bytes, so they are empty",
                where=str(path),
                fix="Check what wrote it",
            )

    def count(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    def batches(self, start: int) -> _Batches:
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            if start >= about.num_rows:
                start -= about.num_rows
                continue
            size = about.total_byte_size // max(1, about.num_rows) + 1
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // size))
            for batch in self._file.iter_batches(rows, row_groups=[group], use_threads=False):
                if start < batch.num_rows:
                    yield batch.slice(start)
                start = max(0, start - batch.num_rows)


class _ArrowFile:
    def __init__(self, source: IO[bytes], path: Path) -> None:
        import pyarrow.ipc

        self._file = pyarrow.ipc.open_file(source)
        _check_schema(self._file.schema, path)

    def count(self) -> int:
        return sum(batch.num_rows for batch in self._all())

    def batches(self, start: int) -> _Batches:
        return _slices(self._all(), start)

    def _all(self) -> _Batches:
        return (self._file.get_batch(at) for at in range(self._file.num_record_batches))


class _ArrowStream:
    def __init__(self, source: IO[bytes], path: Path) -> None:
        import pyarrow.ipc

        self._stream = pyarrow.ipc.open_stream(source)
        _check_schema(self._stream.schema, path)

    def count(self) -> int:
        return sum(batch.num_rows for batch in self._stream)

    def batches(self, start: int) -> _Batches:
        return _slices(self._stream, start)


def _slices(batches: _Batches, start: int) -> _Batches:
    """Small pieces of the batches of an Arrow file from a row on, each proven sound before its values are touched."""
    for batch in batches:
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        # Offsets of a damaged file would lead anywhere in memory.
        batch.validate(full=True)
        for at in range(start, batch.num_rows, _BATCH_ROWS):
            yield batch.slice(at, _BATCH_ROWS)
        start = 0


def _check_schema(schema: Any, path: Path) -> None:
    """Refuse what could not be told apart in a dict, and nesting that later steps could not write."""
    if twice := _twice(schema.names):
        raise InputError(f"two columns are named '{twice}'", where=str(path), fix="Give each column a unique name")
    if not schema.names:
        raise InputError("the file has no columns", where=str(path), fix="Check what wrote it")
    level = [(field.name, field.type) for field in schema]
    for _ in range(MAX_DEPTH):
        level = [
            (name, kind.field(at).type)
            for name, kind in level
            if not _fields_twice(name, kind, path)
            for at in range(kind.num_fields)
        ]
        if not level:
            return
    raise InputError("a column is nested too deeply", where=place(path, field=level[0][0]), fix="Drop the column")


def _fields_twice(column: str, kind: Any, path: Path) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind) and (name := _twice([kind.field(at).name for at in range(kind.num_fields)])):
        where = place(path, field=column)
        raise InputError(f"a struct has two fields named '{name}'", where=where, fix="Rename one of them")
    return False


def _twice(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _rows_of(batch: Any, path: Path, before: int) -> Iterator[tuple[int, Row]]:
    columns = [
        _values(column, name, path, before) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    names = batch.schema.names
    for at, values in enumerate(zip(*columns, strict=True), before + 1):
        yield at, dict(zip(names, values, strict=True))


def _values(column: Any, name: str, path: Path, before: int) -> list[Any]:
    """A column's values as JSON would hold them."""
    try:
        if _is_plain(column.type):
            values = _plain_values(column)
        else:
            values = [_json_value(value) for value in column.to_pylist(maps_as_pydicts="strict")]
    except (UnicodeDecodeError, ValueError, OverflowError, KeyError, TypeError):
        for number, one in enumerate(column, before + 1):
            try:
                _json_value(one.as_py(maps_as_pydicts="strict"))
            except (UnicodeDecodeError, ValueError, OverflowError, KeyError, TypeError) as error:
                raise _bad_value(error, path, number, name) from error
        raise
    if (clean := cleaner_of(name, column.type)) is not None:
        for value in values:
            clean(value)
    return values


def _plain_values(column: Any) -> list[Any]:
    """What `to_pylist` gives, at a fifth of its time for lists of structs: it makes an object of each inner value."""
    import pyarrow.compute
    from pyarrow import types

    kind = column.type
    if types.is_struct(kind) and kind.num_fields:
        names = [kind.field(at).name for at in range(kind.num_fields)]
        fields = zip(*map(_plain_values, column.flatten()), strict=True)
        there = column.is_valid().to_pylist()
        return [
            dict(zip(names, values, strict=True)) if valid else None
            for valid, values in zip(there, fields, strict=True)
        ]
    if types.is_list(kind) or types.is_large_list(kind):
        inner = iter(_plain_values(column.flatten()))
        lengths = pyarrow.compute.list_value_length(column).to_pylist()
        return [None if length is None else list(itertools.islice(inner, length)) for length in lengths]
    values: list[Any] = column.to_pylist()
    return values


def _bad_value(error: Exception, path: Path, number: int, name: str) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        what = f"the text is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start} of the value"
    elif isinstance(error, _NoJsonError):
        what = str(error)
    else:
        what = f"the value cannot be read: {str(error.args[0] if error.args else error)[:160]}"
    command = f"pq.write_table(pq.read_table('IN').drop_columns(['{name}']), 'OUT')"
    return InputError(
        what,
        where=place(path, number, name),
        fix=f"Write the column as text, or drop it: `import pyarrow.parquet as pq; {command}`",
    )


class _NoJsonError(ValueError):
    """A value that neither text nor JSON can hold."""


def _is_plain(kind: Any) -> bool:
    """Whether all values of a type are what JSON holds, so that they need no second look."""
    from pyarrow import types

    if kind.num_fields:
        fields = all(_is_plain(kind.field(at).type) for at in range(kind.num_fields))
        return fields and not types.is_union(kind) and not types.is_map(kind)
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    told = (types.is_string, types.is_large_string, types.is_string_view, types.is_boolean, types.is_integer)
    return any(test(kind) for test in told) or bool(types.is_null(kind))


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise _NoJsonError("the number is infinite")
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {_text_key(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise _NoJsonError(f"the value is {len(value):,} bytes that are not text")
        return text
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta, uuid.UUID)):
        return str(value)
    raise _NoJsonError(f"a value of type {type(value).__name__} is not supported")


def _text_key(key: Any) -> str:
    if not isinstance(key, str):
        raise _NoJsonError("the keys of the map are not strings")
    return key
