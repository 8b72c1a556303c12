"""Files of rows in each kind and packing, as the tools that people use write them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import zstandard

Rows = list[dict[str, Any]]
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_list(rows: Rows) -> bytes:
    return json.dumps(rows, indent=1).encode()


def table(rows: Rows, delimiter: str = ",") -> bytes:
    """CSV as Python writes it; lists and objects as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return text.getvalue().encode()


def tabs(rows: Rows) -> bytes:
    return table(rows, "\t")


def parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


def arrow_file(rows: Rows) -> bytes:
    return _arrow(rows, pyarrow.ipc.new_file)


def arrow_stream(rows: Rows) -> bytes:
    return _arrow(rows, pyarrow.ipc.new_stream)


def _arrow(rows: Rows, open_writer: Callable[..., Any]) -> bytes:
    held = pyarrow.Table.from_pylist(rows)
    sink = io.BytesIO()
    with open_writer(sink, held.schema) as writer:
        writer.write_table(held, max_chunksize=2)
    return sink.getvalue()


def text(rows: Rows) -> bytes:
    return "\n\n".join(row["text"] for row in rows).encode()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": jsonl, "rows.json": json_list, "rows.csv": table, "rows.tsv": tabs, "rows.parquet": parquet,
    "rows.arrow": arrow_file, "stream.arrow": arrow_stream, "rows.txt": text,
}  # fmt: skip
