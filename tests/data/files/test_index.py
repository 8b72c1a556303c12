"""The row index: any row equals what reading the file gives, at once, also after a change, a stop or a bad row."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.data.files import rowindex
from studio.data.files.datafiles import read_rows
from studio.data.files.rowindex import row_index
from studio.data.worker.operations import Operations
from studio.errors import InputError, StoppedError
from studio.settings import Settings
from tests.data.readers.kinds import PACKINGS, WRITERS
from tests.data.rows import chat

Write = Callable[..., Path]
ROWS = [{"text": f'row {n}: á🙂 "x", y\nline {"w" * (n % 50)}'} for n in range(200)]


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks every few rows, and every index kept."""
    monkeypatch.setattr(rowindex, "STEP_BYTES", 300)
    monkeypatch.setattr(rowindex, "KEPT_FROM_BYTES", 0)
    monkeypatch.setattr("studio.data.readers.json_window._CHUNK", 256)


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("file", [*WRITERS, "object.json", "blank.jsonl", "semicolon.csv"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_row_is_the_one_that_reading_gives(write: Write, settings: Settings, file: str, packing: str) -> None:
    special = {
        "object.json": lambda: b'{"v": 1,\n "data": ' + WRITERS["rows.json"](ROWS) + b', "w": []}',
        "blank.jsonl": lambda: b"\xef\xbb\xbf\n" + WRITERS["rows.jsonl"](ROWS).replace(b"\n", b"\r\n \n"),
        "semicolon.csv": lambda: (
            b"\n" + WRITERS["rows.csv"](ROWS).replace(b"text\r\n", b"text;n\r\n").replace(b'"\r\n', b'";1\r\n\r\n')
        ),
    }
    content = special[file]() if file in special else WRITERS[file](ROWS)
    path = write(file + packing, PACKINGS[packing](content))
    expected = list(read_rows(path))
    assert len(expected) == 200
    for index in (row_index(path, settings), row_index(path, settings)):
        assert index.count == 200
        assert [index.row(at) for at in range(1, 201)] == expected
        assert len(index.files[0].marks) > 10 or file.endswith((".parquet", ".arrow"))
    for at in (0, -1, 201):
        with pytest.raises(InputError, match=rf"there is no row {at}; the file has 200"):
            index.row(at)


@pytest.mark.usefixtures("fine")
def test_kept_index_is_used_until_the_file_changes(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("x.jsonl", ROWS)
    row_index(path, settings)
    (kept,) = (settings.home / "cache" / "rows").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(rowindex, "open_reader", None)
        assert row_index(path, settings).count == 200
    # Cut off or of another file, it is made anew.
    for damaged in ("", kept.read_text()[:-5], kept.read_text().replace(str(path), "/other")):
        kept.write_text(damaged)
        assert row_index(path, settings).row(200)[1] == ROWS[199]
    write("x.jsonl", [{"text": "new"}, *ROWS])
    assert row_index(path, settings).row(1) == (1, {"text": "new"})
    assert len(list(kept.parent.iterdir())) == 1


@pytest.mark.usefixtures("fine")
def test_a_stop_ends_the_pass_and_keeps_nothing(write: Write, settings: Settings) -> None:
    path = write("x.jsonl", ROWS)
    told: list[tuple[str, float, float | None]] = []

    def stop(*step: Any) -> None:
        told.append(step)
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        row_index(path, settings, stop)
    assert len(told) == 1
    assert told[0][0] == "indexing rows"
    assert 0 < told[0][1] < told[0][2] == path.stat().st_size
    assert not (settings.home / "cache").exists()


@pytest.mark.usefixtures("fine")
def test_a_bad_row_of_jsonl_hides_no_other(write: Write, settings: Settings) -> None:
    lines = [json.dumps(row) for row in ROWS]
    lines[100] = '{"text": broken'
    index = row_index(write("x.jsonl", "\n".join(lines)), settings)
    assert index.count == 200
    assert index.row(102) == (102, ROWS[101])
    with pytest.raises(InputError, match="row 101: bad JSON at line 101"):
        index.row(101)


@pytest.mark.usefixtures("fine")
def test_rows_before_what_breaks_a_file_can_be_seen(write: Write, settings: Settings) -> None:
    broken = write("x.csv", WRITERS["rows.csv"](ROWS) + b"1,2,3\r\nmore\r\n")
    for index in (row_index(broken, settings), row_index(broken, settings)):
        assert index.count == 200
        assert index.row(200)[1] == ROWS[199]
        with pytest.raises(InputError, match="the row has 3 cells, the header has 1"):
            index.row(201)
    with pytest.raises(InputError, match="the file is empty"):
        row_index(write("y.csv", ""), settings)
    with pytest.raises(InputError, match="a header but no rows"):
        row_index(write("z.csv", "a,b\n"), settings)


@pytest.mark.usefixtures("fine")
def test_a_file_that_goes_and_a_disk_that_is_full(write: Write, settings: Settings) -> None:
    path = write("x.jsonl", ROWS)
    (settings.home / "cache").write_text("a file where the folder should be")
    index = row_index(path, settings)
    assert index.row(7) == (7, ROWS[6])
    path.unlink()
    for use in (lambda: index.row(7), lambda: row_index(path, settings)):
        with pytest.raises(InputError, match=r"x\.jsonl: the file cannot be read: No such file"):
            use()


def test_folder(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "b.jsonl.gz").write_bytes(PACKINGS[".gz"](b'{"text": "b"}\n'))
    (folder / "a.jsonl").write_text('{"text": "a"}\n\n{"text": "aa"}\n')
    index = row_index(folder, settings)
    assert [index.row(at) for at in (1, 2, 3)] == list(read_rows(folder))
    assert index.row(3)[0].file == folder / "b.jsonl.gz"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="the folder has 3"):
        index.row(4)


def test_row_of_a_large_file_at_once(write: Write, settings: Settings, tmp_path: Path) -> None:
    # 60 MB here; 2 GB was measured once: 7 s for the pass, 1 ms for a row, 25 MB of memory.
    row = json.dumps({"text": "word " * 200}) + "\n"
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for n in range(60):
            file.write(json.dumps({"text": f"first of {n}"}) + "\n")
            file.write(row * 1000)
    assert path.stat().st_size > 55e6
    told: list[Any] = []
    index = row_index(path, settings, lambda *step: told.append(step))
    assert len(told) >= 5
    assert index.count == 60 * 1001
    again = row_index(path, settings)
    began = time.perf_counter()
    assert again.row(59 * 1001 + 1)[1] == {"text": "first of 59"}
    assert time.perf_counter() - began < 0.5


def test_preview_and_inspect(settings: Settings, model_path: Path, write: Write) -> None:
    operations = Operations(settings)
    path = write("x.csv", WRITERS["rows.csv"]([chat("a", f"{n}") for n in range(5)]))
    told: list[Any] = []
    shown = operations.run(
        "preview", {"data": {"train": [{"path": str(path)}]}, "row": 4, "model": str(model_path)},
        lambda *step: told.append(step),
    )  # fmt: skip
    assert (shown["row"], shown["rows"], shown["raw"]) == (5, 5, chat("a", "3"))
    # What a text file's rows are is said, since it is a rule and not in the file.
    text = write("x.txt", "one\ntwo\n\nthree\n")
    found = operations.run("inspect", {"path": str(text)}, lambda *step: None)
    assert (found["rows"], found["format"]) == (2, "text")
    assert "each block of lines between blank lines is a separate document" in found["findings"][0]["text"]
    folder = text.parent / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("one\n")
    assert operations.run("inspect", {"path": str(folder)}, lambda *step: None)["rows"] == 1
    (folder / "b.md").write_text("two\n")
    assert operations.run("inspect", {"path": str(folder)}, lambda *step: None)["rows"] == 2
