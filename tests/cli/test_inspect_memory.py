"""`studio data inspect` of an ordinary large file: what all of its processes take, and that it goes on to the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.preparation import alpaca_rows, watched
from tests.data.rows import chat

MEGABYTE = 1_000_000


@pytest.mark.long
def test_fifty_megabytes_take_less_than_three_hundred(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(83_000)))
    assert file.stat().st_size > 50 * MEGABYTE
    found, peak = watched("data", "inspect", str(file), "--model", str(model_path), "--json")
    assert json.loads(found)["rows"] == 83_000 and json.loads(found)["tokens"] > 10_000_000
    assert peak < 300 * MEGABYTE


@pytest.mark.long
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many rows: 4 MB more text, whose tokens as Python's integers were 80 MB."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    peaks = []
    for many in (600, 6000):
        file = tmp_path / f"{many}.jsonl"
        file.write_text("".join(json.dumps(chat(f"{n} " * 70, f"{n} " * 70)) + "\n" for n in range(1000, 1000 + many)))
        found, peak = watched("data", "inspect", str(file), "--model", str(model_path), "--json")
        assert json.loads(found)["rows"] == many
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 30 * MEGABYTE
