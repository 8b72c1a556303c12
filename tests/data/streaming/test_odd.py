"""Odd files have the same rows, or the same sentence, with streaming as without."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError
from studio.settings import Settings
from tests.data.streaming.test_streaming import ROWS, as_hub_set, as_parquet, lines, prepared, told


def _zst(content: bytes) -> bytes:
    import pyarrow as pa

    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


def _folder(path: Path, files: dict[str, str]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _typed(folder: Path) -> Path:
    more = {"at": datetime.datetime(2026, 1, 1), "raw": b"\xff\x00", "score": float("nan"), "none": None}
    return as_parquet(folder / "a.parquet", [{**row, **more} for row in ROWS[:5]])


FILES: dict[str, Callable[[Path], Path]] = {
    "nothing": lambda folder: _written(folder / "a.jsonl", b""),
    "blank lines": lambda folder: _written(folder / "a.jsonl", b"\n \n\n"),
    "a mark alone": lambda folder: _written(folder / "a.jsonl", b"\xef\xbb\xbf"),
    "gzip of nothing": lambda folder: _written(folder / "a.jsonl.gz", gzip.compress(b"")),
    "gzip of a blank line": lambda folder: _written(folder / "a.jsonl.gz", gzip.compress(b"\n")),
    "zst of nothing": lambda folder: _written(folder / "a.jsonl.zst", _zst(b"")),
    "zst of rows": lambda folder: _written(folder / "a.jsonl.zst", _zst(lines(ROWS[:5]).encode())),
    "an empty list": lambda folder: _written(folder / "a.json", b"[]"),
    "an empty folder": lambda folder: _folder(folder / "a", {}),
    "a folder of other files": lambda folder: _folder(folder / "a", {"a.pdf": "x"}),
    "an empty file in a folder": lambda folder: _folder(folder / "a", {"a.jsonl": lines(ROWS[:3]), "b.jsonl": ""}),
    "formats in a folder": lambda folder: _folder(
        folder / "a", {"a.jsonl": lines(ROWS[:3]), "b.csv": "prompt,completion\na,b\n"}
    ),
    "a parquet file without rows": lambda folder: _no_rows(folder / "a.parquet"),
    "types that JSON lacks": _typed,
    "one row": lambda folder: _written(folder / "a.jsonl", lines(ROWS[:1]).encode()),
    "one row without a line end": lambda folder: _written(folder / "a.jsonl", lines(ROWS[:1]).encode()[:-1]),
    "carriage returns": lambda folder: _written(folder / "a.jsonl", lines(ROWS[:5]).replace("\n", "\r\n").encode()),
    "UTF-16": lambda folder: _written(folder / "a.jsonl", lines(ROWS[:5]).encode("utf-16")),
    "half a character": lambda folder: _written(
        folder / "a.json", json.dumps([*ROWS[:2], {"prompt": "\ud800", "completion": "a"}]).encode()
    ),
}  # fmt: skip


def _no_rows(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS[:1]).slice(0, 0), path)
    return path


def outcome(settings: Settings, tokenizer: Any, streaming: str, path: Path | str, **data: Any) -> Any:
    try:
        done = prepared(settings, tokenizer, path, streaming=streaming, **data)
    except InputError as error:
        return error.sentence
    return told(done.train), told(done.validation), done.report.train_rows, done.report.tokens


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("validation", [0, 0.5])
def test_odd_files(settings, tokenizer, tmp_path: Path, name: str, validation: float) -> None:
    path = FILES[name](tmp_path)
    whole, streamed = (outcome(settings, tokenizer, one, path, validation=validation) for one in ("off", "on"))
    assert streamed == whole


def test_an_odd_file_for_validation(settings, tokenizer, tmp_path: Path) -> None:
    good = _written(tmp_path / "good.jsonl", lines(ROWS[:5]).encode())
    for name in ("nothing", "gzip of nothing", "one row", "an empty folder"):
        (tmp_path / name).mkdir()
        data = {"validation": str(FILES[name](tmp_path / name))}
        whole, streamed = (outcome(settings, tokenizer, one, good, **data) for one in ("off", "on"))
        assert streamed == whole, name


@pytest.mark.parametrize("mix", ["concatenate", "interleave"])
def test_one_source_twice(settings, tokenizer, write, mix: str) -> None:
    path = str(write("a.jsonl", ROWS[:5]))
    data = {"train": [{"path": path}, {"path": path, "rows": 2}], "mix": mix, "validation": 0.3}
    whole, streamed = (outcome(settings, tokenizer, one, "", **data) for one in ("off", "on"))
    assert streamed == whole
    data["train"][1]["path"] = data["validation"] = path  # type: ignore[index]
    whole, streamed = (outcome(settings, tokenizer, one, "", **data) for one in ("off", "on"))
    assert streamed == whole


@pytest.mark.parametrize("count", [30, 0])
def test_a_set_of_the_hub_with_an_empty_file(settings, tokenizer, count: int) -> None:
    path = as_hub_set(settings, ROWS[:count], like=ROWS)
    whole, streamed = (outcome(settings, tokenizer, one, path, validation=0) for one in ("off", "on"))
    assert streamed == whole and (count == 0 or len(whole[0]) == count)
