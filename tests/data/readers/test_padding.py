"""Nulls that Arrow puts into the structs of tool calls: gone where they are padding, kept everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from studio.data.files.datafiles import read_rows
from studio.data.files.hubsets import read_arrow
from studio.data.formats.rows import parse_row

Rows = list[dict[str, Any]]
Read = Callable[[pyarrow.Table], Rows]


@pytest.fixture(params=["rows.parquet", "rows.arrow", "hub"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Read:
    """read(table): its rows as a file of each kind gives them."""

    def run(table: pyarrow.Table) -> Rows:
        path = tmp_path / str(request.param)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            with pyarrow.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
        return [row for _, row in (read_arrow((path,)) if path.name == "hub" else read_rows(path))]

    return run


def _call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _turns(call: dict[str, Any]) -> Rows:
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]


def test_calls_and_tools_have_only_what_was_written(read: Read) -> None:
    where = {"city": "Paris", "near": [{"x": 1}, None], "in": {"unit": "C"}}
    first = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    second = {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"enum": ["a", None]}}}}
    rows = [
        {"messages": _turns(_call("weather", where)), "tools": [{"type": "function", "function": first}]},
        {"messages": _turns(_call("now", {"zone": "UTC", "in": {"date": "x"}})), "tools": [{"function": second}]},
    ]
    padded = pyarrow.Table.from_pylist(rows)
    assert padded.to_pylist()[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]["city"] is None
    found = read(padded)
    for row, back in zip(rows, found, strict=True):
        assert back["tools"] == row["tools"]
        assert back["messages"][1] == row["messages"][1]
        (call,) = parse_row(back, 1, "x", "messages").messages[1]["tool_calls"]  # type: ignore[index]
        assert call["function"] == row["messages"][1]["tool_calls"][0]["function"]
    # Of a message itself nothing is taken out.
    assert found[0]["messages"][0] == {"role": "user", "content": "q", "tool_calls": None}


def test_what_is_no_struct_of_a_call_stays_to_the_letter(read: Read) -> None:
    text = '{"city": null}'
    kind = pyarrow.map_(pyarrow.string(), pyarrow.string())
    calls = pyarrow.list_(pyarrow.struct([("name", pyarrow.string()), ("arguments", kind)]))
    table = pyarrow.table(
        {
            "messages": pyarrow.array([_turns(_call("weather", text))]),
            "extra": pyarrow.array([{"arguments": {"city": None}}]),
            "completion": pyarrow.array([[{"name": "weather", "arguments": [("city", None)]}]], calls),
        }
    )
    (row,) = read(table)
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == text
    assert row["extra"] == {"arguments": {"city": None}}
    assert [value for _, value in _items(row["completion"][0]["arguments"])] == [None]


def _items(value: Any) -> list[Any]:
    """A map, which sets of the Hub have as pairs."""
    return list(value.items()) if isinstance(value, dict) else value


def test_an_empty_call_has_no_arguments(read: Read) -> None:
    rows = [{"messages": _turns(_call("now", {}))}, {"messages": _turns(_call("weather", {"city": "Paris"}))}]
    first, _ = read(pyarrow.Table.from_pylist(rows))
    assert first["messages"][1]["tool_calls"][0]["function"]["arguments"] == {}
