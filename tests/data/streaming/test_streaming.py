"""Rows that are streamed are those of a run that holds all of them, in the same order, whatever file they lie in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig
from studio.data.files.datafiles import Row
from studio.data.files.hubsets import MARKER, HubSet, set_folder
from studio.data.prepare.batch import epoch_order
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.streaming.rows import StreamedRows
from studio.data.streaming.shards import Shard
from studio.errors import InputError, InputErrors
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.parity.made import demo_rows

ROWS = demo_rows("train.jsonl", 60)


def prepared(settings: Settings, tokenizer: Any, path: Path | str, method: str = "sft", **data: Any) -> Prepared:
    values = {"train": [{"path": str(path)}], "truncation": "cut", "max_length": 512, "streaming": "on", **data}
    return prepare_data(DataConfig(**values), MethodConfig(name=method), tokenizer, settings, seed=7)


def told(rows: Any) -> list[tuple[int, str, list[int], list[int]]]:
    return [(one.row, one.path, one.input_ids, one.labels) for one in rows]


def as_parquet(path: Path, rows: list[Row]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=16)
    return path


def as_arrow(path: Path, rows: list[Row]) -> Path:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.Table.from_pylist(rows).schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows), max_chunksize=16)
    return path


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_hub_set(settings: Settings, rows: list[Row], like: list[Row] | None = None) -> str:
    """Put rows where a set of the Hub lies once it was fetched, in two files of 30; `like` has the form of none."""
    import pyarrow as pa

    asked = HubSet("org/rows")
    folder = set_folder(asked, settings)
    folder.mkdir(parents=True)
    for at in range(2):
        table = pa.Table.from_pylist(rows[at * 30 : at * 30 + 30], pa.Table.from_pylist(like or rows).schema)
        with pa.OSFile(str(folder / f"{at}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=16)
    told = {"files": ["0.arrow", "1.arrow"], "rows": len(rows), "commit": "c0ffee"}
    (folder / MARKER).write_text(json.dumps(told))
    return asked.name


def made(kind: str, folder: Path) -> Path:
    """The rows in a file, or in three of a folder."""
    if kind == "jsonl":
        (folder / "rows.jsonl").write_text("\ufeff\n" + lines(ROWS).replace("\n", "\n\n", 9), encoding="utf-8")
        return folder / "rows.jsonl"
    if kind == "gzip":
        (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines(ROWS).encode()))
        return folder / "rows.jsonl.gz"
    if kind == "list":
        (folder / "rows.json").write_text(json.dumps(ROWS))
        return folder / "rows.json"
    (folder / "shards").mkdir()
    for at in range(3):
        part = ROWS[at * 20 : at * 20 + 20]
        if kind == "parquet":
            as_parquet(folder / "shards" / f"{at}.parquet", part)
        elif kind == "arrow":
            as_arrow(folder / "shards" / f"{at}.arrow", part)
        else:
            (folder / "shards" / f"{at}.jsonl").write_text(lines(part))
    return folder / "shards"


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "list", "parquet", "arrow", "folder", "hub"])
def test_rows_and_order_are_those_of_a_run_without_streaming(settings, tokenizer, tmp_path, kind: str) -> None:
    path = as_hub_set(settings, ROWS) if kind == "hub" else made(kind, tmp_path)
    whole = prepared(settings, tokenizer, path, streaming="off", validation=0.2)
    streamed = prepared(settings, tokenizer, path, validation=0.2)
    assert isinstance(streamed.train, StreamedRows)
    assert told(streamed.train) == told(whole.train)
    assert told(streamed.validation) == told(whole.validation)
    assert len(streamed.train) == 48 and len(streamed.validation) == 12
    assert [one.sha256 for one in streamed.report.sources] == [one.sha256 for one in whole.report.sources]
    assert streamed.estimate is not None
    order = epoch_order(48, 7)
    assert list(streamed.estimate.each) == [whole.train[at].length for at in order]
    # All of them were looked at, so what is estimated is known.
    assert streamed.estimate.tokens == pytest.approx(whole.report.tokens * 0.8, rel=0.1)
    assert streamed.longest >= whole.longest


def test_several_sets_are_mixed_and_their_rows_chosen_as_without_streaming(settings, tokenizer, write) -> None:
    one, two = write("one.jsonl", ROWS[:25]), write("two.jsonl", ROWS[25:])
    data = {
        "train": [{"path": str(one), "weight": 1}, {"path": str(two), "weight": 3, "rows": 20}],
        "mix": "interleave",
        "stopping_strategy": "all_exhausted",
        "validation": 0.1,
    }
    whole = prepared(settings, tokenizer, "", streaming="off", **data)
    streamed = prepared(settings, tokenizer, "", **data)
    assert told(streamed.train) == told(whole.train) and told(streamed.validation) == told(whole.validation)
    assert len(streamed.train) > 45, "rows are repeated"
    for stopping in ("all_exhausted", "first_exhausted"):
        data["stopping_strategy"] = stopping
        whole, streamed = (prepared(settings, tokenizer, "", streaming=one, **data) for one in ("off", "on"))
        used = [[(one.kept, one.unused, one.repeated) for one in each.report.sources] for each in (whole, streamed)]
        assert used[0] == used[1]
        said = [[one.text for one in each.report.findings if "the mix" in one.text] for each in (whole, streamed)]
        assert said[0] == said[1] != []
        assert streamed.report.tokens == whole.report.tokens, "all rows were looked at"


def test_the_tokens_of_a_few_rows_are_not_those_of_the_whole_file(settings, tokenizer, write) -> None:
    data = {"train": [{"path": str(write("rows.jsonl", ROWS)), "rows": 5}], "validation": 0}
    whole, streamed = (prepared(settings, tokenizer, "", streaming=one, **data) for one in ("off", "on"))
    assert streamed.report.tokens == whole.report.tokens


@pytest.mark.parametrize("validation", [0.2, "file"])
def test_tokens_of_the_report_are_those_of_training_and_validation_with_streaming_too(
    settings, tokenizer, write, validation
) -> None:
    path, held = write("rows.jsonl", ROWS[:30]), write("held.jsonl", ROWS[30:])
    data = {"validation": str(held) if validation == "file" else validation}
    whole, streamed = (prepared(settings, tokenizer, path, streaming=one, **data) for one in ("off", "on"))
    both = [*whole.train, *whole.validation]
    for report in (whole.report, streamed.report):
        assert report.tokens == sum(row.tokens for row in both), "all rows were looked at"
        assert report.supervised_tokens == sum(row.supervised for row in both)


def test_a_validation_file_and_limits_are_those_without_streaming(settings, tokenizer, write) -> None:
    train, held = write("train.jsonl", ROWS[:30]), write("held.jsonl", ROWS[30:])
    data = {"validation": str(held), "max_length": 60}
    whole = prepared(settings, tokenizer, train, streaming="off", **data)
    streamed = prepared(settings, tokenizer, train, **data)
    assert told(streamed.train) == told(whole.train) and told(streamed.validation) == told(whole.validation)
    assert 0 < whole.report.cut == streamed.train.pool.cut  # type: ignore[attr-defined]


def test_tokens_are_kept_by_shard_and_used_by_the_next_run(settings, tokenizer, tmp_path, monkeypatch) -> None:
    folder = made("folder", tmp_path)
    first = prepared(settings, tokenizer, folder, validation=0)
    expected = told(first.train)
    first.train.pool.close()  # type: ignore[attr-defined]
    (folder / "3.jsonl").write_text(lines(ROWS[:5]))
    read: list[str] = []
    original = Shard.rows

    def rows(self: Shard, places: Any) -> list[Row]:
        read.append(self.file.name)
        return original(self, places)

    monkeypatch.setattr(Shard, "rows", rows)
    again = prepared(settings, tokenizer, folder, validation=0)
    assert told(again.train)[:60] == expected
    assert set(read) == {"3.jsonl"}, "only the new shard's rows were made tokens"
    other = prepared(settings, tokenizer, folder, validation=0, template="plain")
    assert other.train[0].input_ids != expected[0][2], "another template has tokens of its own"


def test_what_is_kept_of_a_file_that_changed_is_removed(settings, tokenizer, write) -> None:
    path = write("rows.jsonl", ROWS[:10])
    prepared(settings, tokenizer, path)
    (before,) = (settings.home / "cache" / "streams").iterdir()
    path = write("rows.jsonl", ROWS[:12])
    assert len(prepared(settings, tokenizer, path, validation=0).train) == 12
    (after,) = (settings.home / "cache" / "streams").iterdir()
    assert before != after


def test_damaged_tokens_are_made_again(settings, tokenizer, write) -> None:
    path = write("rows.jsonl", ROWS[:10])
    first = prepared(settings, tokenizer, path, validation=0)
    expected = told(first.train)
    first.train.pool.close()  # type: ignore[attr-defined]
    (file,) = settings.home.glob("cache/streams/*/tokens-*/tokens")
    content = bytearray(file.read_bytes())
    content[400:404] = b"\xff\xff\xff\x7f"
    file.write_bytes(content[:-30])
    assert told(prepared(settings, tokenizer, path, validation=0).train) == expected


def test_bad_rows_are_named_before_anything_is_loaded(settings, tokenizer, write) -> None:
    content = lines(ROWS[:20]).splitlines(keepends=True)
    content[3] = '{"prompt": "a"}\n'
    content[17] = '{"prompt": "", "completion": ""}\n'
    with pytest.raises(InputErrors) as caught:
        prepared(settings, tokenizer, write("rows.jsonl", "".join(content)))
    assert caught.value.errors[0].where.startswith("rows.jsonl, row 4")
    assert caught.value.errors[1].where.startswith("rows.jsonl, row 18")


@pytest.mark.parametrize(("kind", "bad"), [("jsonl", 7), ("jsonl", 0), ("folder", 7), ("parquet", 7)])
def test_a_bad_row_that_is_not_chosen_refuses_no_run(settings, tokenizer, tmp_path, kind: str, bad: int) -> None:
    """As without streaming: only the rows that `rows` takes have to be usable."""
    rows: list[Any] = [*ROWS[:20]]
    if kind == "parquet":
        path = tmp_path / "rows.parquet"
        rows[bad] = {"messages": []}
        as_parquet(path, rows)
    elif kind == "jsonl":
        path = tmp_path / "rows.jsonl"
        rows[bad] = {"prompt": "a"}
        path.write_text(lines(rows))
    else:
        path = tmp_path / "rows"
        path.mkdir()
        rows[bad] = {"prompt": "a"}
        for at in range(2):
            (path / f"{at}.jsonl").write_text(lines(rows[at * 10 : at * 10 + 10]))
    outcomes = []
    for wanted in (3, 6, 19, 20):
        data = {"train": [{"path": str(path), "rows": wanted}], "validation": 0}
        for streaming in ("off", "on"):
            try:
                outcomes.append(told(prepared(settings, tokenizer, "", streaming=streaming, **data).train))
            except InputError as error:
                outcomes.append(error.sentence.partition(":")[0])  # type: ignore[arg-type]
    assert outcomes[::2] == outcomes[1::2]
    assert any(isinstance(one, list) for one in outcomes) and f"row {bad + 1}" in str(outcomes[-1])


def test_a_truncated_parquet_shard_is_named(settings, tokenizer, tmp_path) -> None:
    folder = made("parquet", tmp_path)
    bad = folder / "1.parquet"
    bad.write_bytes(bad.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"1\.parquet.*cannot be read.*truncated"):
        prepared(settings, tokenizer, folder)


def test_a_row_without_usable_tokens_is_refused_at_the_start_and_left_out_later(
    settings, tokenizer, write, monkeypatch
) -> None:
    rows: list[Any] = [{"text": f"Number {n} of a text."} for n in range(200)]
    rows[150] = {"text": "It ends with <|im_end|> here."}
    path = write("rows.jsonl", rows)
    with pytest.raises(InputError, match=r"rows\.jsonl, row 151.*<\|im_end\|>"):
        prepared(settings, tokenizer, path, "pretrain", validation=0)
    monkeypatch.setattr("studio.data.streaming.preparing._LOOKED_CHARACTERS", 100)
    rows = [{"text": f"Number {n} of a text."} for n in range(300)]
    rows[280] = {"text": "It ends with <|im_end|> here."}
    done = prepared(settings, tokenizer, write("long.jsonl", rows), "pretrain", validation=0, shuffle=False)
    assert done.estimate is not None and len(done.estimate.each) == 256
    said: list[str] = []
    done.train.pool.tell = said.append  # type: ignore[attr-defined]
    assert [done.train[at].row for at in (279, 280, 281)] == [280, 282, 282], "the next row takes its place"
    assert done.train[280].row == 282 and len(said) == 1
    assert said[0].startswith("long.jsonl, row 281, field 'text': the text contains '<|im_end|>'")
    assert done.train.pool.problems == 1  # type: ignore[attr-defined]


def test_a_file_that_changes_in_training_is_refused(settings, tokenizer, write, monkeypatch) -> None:
    monkeypatch.setattr("studio.data.streaming.preparing._LOOKED_CHARACTERS", 100)
    path = write("long.jsonl", [{"text": f"Number {n} of a text."} for n in range(300)])
    done = prepared(settings, tokenizer, path, "pretrain", validation=0, shuffle=False)
    with path.open("a") as file:
        file.write('{"text": "More."}\n')
    with pytest.raises(InputError, match=r"long\.jsonl: the file was changed while the run reads"):
        _ = done.train[290]


@pytest.mark.parametrize(
    ("method", "data", "text"),
    [
        ("sft", {"truncation": "error"}, "Set data.truncation to cut or drop"),
        ("sft", {"deduplicate": "exact"}, "Set data.deduplicate to none"),
        ("dpo", {}, "DPO needs all of its rows"),
    ],
)
def test_what_cannot_be_streamed_is_refused(settings, tokenizer, write, method: str, data: Any, text: str) -> None:
    with pytest.raises(InputError, match=r"^data\.streaming: ") as caught:
        prepared(settings, tokenizer, write("rows.jsonl", ROWS[:5]), method, **data)
    assert text in caught.value.sentence


def test_joined_texts_are_refused(settings, tokenizer, write) -> None:
    config = DataConfig(train=[{"path": str(write("a.jsonl", [{"text": "a b"}]))}], truncation="cut", streaming="on")
    with pytest.raises(InputError, match="where joined texts are split"):
        prepare_data(config, MethodConfig(name="pretrain", documents="join"), tokenizer, settings)


def test_auto_goes_by_the_size_of_the_files(settings, tokenizer, write, monkeypatch) -> None:
    path = write("rows.jsonl", ROWS[:10])
    assert prepared(settings, tokenizer, path, streaming="auto").estimate is None
    monkeypatch.setattr("studio.data.streaming.wanted.LARGE_BYTES", 1000)
    assert prepared(settings, tokenizer, path, streaming="auto").estimate is not None
    whole = prepared(settings, tokenizer, path, streaming="auto", truncation="error")
    assert whole.estimate is None
    (finding,) = [one for one in whole.report.findings if "held in memory" in one.text]
    assert finding.fix == "Set data.truncation to cut or drop"


def test_two_processes_at_a_time_keep_and_read_the_same_tokens(settings, tokenizer, write) -> None:
    path = write("rows.jsonl", ROWS[:10])
    one = prepared(settings, tokenizer, path, validation=0)
    two = prepared(settings, tokenizer, path, validation=0)
    assert told(one.train) == told(two.train)
    sizes = [file.stat().st_size for file in settings.home.glob("cache/streams/*/tokens-*/tokens")]
    assert len(sizes) == 1 and sizes[0] < 10 * 4 * 600, "each row was kept once"
