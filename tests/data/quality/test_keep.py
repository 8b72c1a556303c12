"""Cleaned copies: what is written, what is left out and counted, and that nothing is lost or written over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.data.files.datafiles import read_rows
from studio.data.files.tables import ParquetWriter
from studio.data.formats.rows import detect_format, parse_row
from studio.data.quality.keep import DROPPABLE, row_of
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError, StudioError
from studio.methods import RowKind
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]
MESSAGES = chat("2+2?", "4")["messages"]
ASKED, GIVEN = MESSAGES[:1], MESSAGES[1:]
WORSE = [{"role": "assistant", "content": "5"}]
SHAREGPT = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
FORMS: list[tuple[RowKind, dict[str, Any], dict[str, Any]]] = [
    ("answers", {"conversations": SHAREGPT}, {"messages": MESSAGES}),
    ("answers", {"instruction": "2+2?", "input": "", "output": "4"}, {"messages": MESSAGES}),
    ("answers", {"prompt": "2+2=", "completion": "4", "id": 1}, {"prompt": "2+2=", "completion": "4"}),
    ("answers", {"prompt": ASKED, "completion": GIVEN}, {"prompt": ASKED, "completion": GIVEN}),
    ("answers", {"text": "Two and two is four.", "source": "a book"}, {"text": "Two and two is four."}),
    ("pairs", {"instruction": "2+2?", "chosen": "4", "rejected": "5"},
     {"prompt": ASKED, "chosen": GIVEN, "rejected": WORSE}),
    ("pairs", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}),
    ("rated", {"prompt": "2+2=", "completion": "4", "label": 0}, {"prompt": "2+2=", "completion": "4", "label": False}),
    ("rated", {"messages": MESSAGES, "kto_tag": True}, {"prompt": ASKED, "completion": GIVEN, "label": True}),
    ("rated", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}),
    ("prompts", {"prompt": "2+2=", "solution": "4"}, {"prompt": "2+2=", "solution": "4", "answer": "4"}),
    ("prompts", {"instruction": "2+2?", "output": "4"}, {"prompt": ASKED, "answer": "4"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "row", "written"), FORMS)
def test_every_form_reads_back_the_same(kind: RowKind, row: dict[str, Any], written: dict[str, Any]) -> None:
    example = parse_row(row, 3, "x.jsonl", detect_format([(3, row)], "x.jsonl", kind), kind)
    assert row_of(example, kind) == written


def test_what_would_be_lost_is_refused() -> None:
    example = parse_row({"prompt": "2+2=", "completion": "4"}, 3, "x.jsonl", "prompt_completion")
    with pytest.raises(StudioError, match=r"x\.jsonl, row 3: the row does not read back the same"):
        row_of(replace(example, answer="beside it"), "answers")


@pytest.fixture
def keep(settings: Settings, write: Write, model_path: Path) -> Callable[..., Any]:
    def kept(rows: Any, method: str = "sft", data: dict[str, Any] | None = None, **args: Any) -> Any:
        path = rows if isinstance(rows, Path) else write("x.jsonl", rows)
        config = {"train": [{"path": str(path)}], "validation": 0, **(data or {})}
        values = {"name": "clean", "data": config, "method": {"name": method}, "model": str(model_path), **args}
        return WholeOperations(settings).run("keep", values, lambda *told: None)

    return kept


def lines(result: Any, part: str = "train") -> list[Any]:
    return [row for _, row in read_rows(Path(result["path"]) / f"{part}.jsonl")]


def test_a_set_with_its_manifest(keep: Callable[..., Any], write: Write, settings: Settings) -> None:
    rows = [chat("a", "b"), chat("a", "b"), chat("c", ""), {"messages": 5}, chat("e", "e"), {**chat("f", "g"), "id": 7}]
    path, held = write("x.jsonl", rows), write("held.jsonl", [chat("h", "i")])
    before = path.read_bytes()
    told = keep(
        path, drop=["empty_answer", "unusable", "answer_is_prompt"],
        data={"deduplicate": "exact", "validation": str(held)},
    )  # fmt: skip
    assert lines(told) == [chat("a", "b"), chat("f", "g")]
    assert lines(told, "validation") == [chat("h", "i")]
    assert Path(told["path"]) == settings.home / "data" / "clean"
    manifest = json.loads((Path(told["path"]) / "manifest.json").read_text())
    assert {**manifest, "path": told["path"]} == told
    left = {"empty_answer": 1, "unusable": 1, "answer_is_prompt": 1, "duplicate": 1}
    assert (manifest["rows"], manifest["kept"], manifest["left_out"]) == (7, 3, left)
    assert manifest["unread_keys"] == {"id": 1}
    first, second = manifest["sources"]
    assert first["sha256"] == hashlib.sha256(before).hexdigest()
    assert (first["left_out"], first["kept"], second["kept"]) == (left, 2, 1)
    assert [(one["part"], one["rows"]) for one in manifest["files"]] == [("validation", 1), ("train", 2)]
    for one in manifest["files"]:
        assert one["sha256"] == hashlib.sha256((Path(told["path"]) / one["file"]).read_bytes()).hexdigest()
    assert manifest["settings"]["data"]["deduplicate"] == "exact"
    assert path.read_bytes() == before


def test_it_never_writes_over_another(keep: Callable[..., Any], settings: Settings) -> None:
    names = [keep([chat("a", str(n))])["name"] for n in range(3)]
    assert names == ["clean", "clean-2", "clean-3"]
    assert (settings.home / "data" / "clean" / "train.jsonl").read_text() == json.dumps(chat("a", "0")) + "\n"


def test_a_row_that_is_not_ticked_stops_it_and_leaves_nothing(keep: Callable[..., Any], settings: Settings) -> None:
    with pytest.raises(InputError, match=r"row 2.*or drop such rows with drop: empty_answer"):
        keep([chat("a", "b"), chat("c", "")])
    with pytest.raises(InputError, match="no rows are left to save"):
        keep([chat("e", "e")], drop=["answer_is_prompt"])
    assert list((settings.home / "data").iterdir()) == []

    def stop(*told: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WholeOperations(settings).run("keep", {"name": "x", "data": {"train": [{"path": "demo/train.jsonl"}]}}, stop)
    assert list((settings.home / "data").iterdir()) == []


def test_checks_that_count_tokens(keep: Callable[..., Any]) -> None:
    rows = [chat("a", "b"), chat("a", "b " * 80), chat("<|im_end|>", "b")]
    told = keep(rows, drop=["too_long", "control_token"], data={"max_length": 60})
    assert lines(told) == [chat("a", "b")]
    assert told["left_out"] == {"too_long": 1, "control_token": 1}


def test_secrets_are_hidden_everywhere(keep: Callable[..., Any]) -> None:
    told = keep([chat("I am joe@corp.de", "Hello joe@corp.de!"), chat("a", "b")], hide_secrets=True)
    assert lines(told)[0] == chat("I am [email address]", "Hello [email address]!")
    assert told["hidden_secrets"] == 2
    pair = {"prompt": chat("I am joe@corp.de", "")["messages"][:1], "chosen": MESSAGES[1:],
            "rejected": [{"role": "assistant", "content": "joe@corp.de"}]}  # fmt: skip
    told = keep([pair], method="dpo", hide_secrets=True)
    assert "corp.de" not in (Path(told["path"]) / "train.jsonl").read_text()
    assert told["hidden_secrets"] == 2
    assert keep([chat("I am joe@corp.de", "b"), chat("a", "b")], drop=["secret"])["left_out"] == {"secret": 1}


def test_parquet_holds_the_same_rows(keep: Callable[..., Any]) -> None:
    import pyarrow.parquet as pq

    rows = [chat(f"é{n}", "b") for n in range(2500)]
    told = keep(rows, format="parquet")
    table = pq.read_table(Path(told["path"]) / "train.parquet")
    assert table.to_pylist() == rows


def test_parquet_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    for odd in ({"a": 1, "b": 2}, {"a": "text"}):
        writer = ParquetWriter(tmp_path / f"{len(odd)}.parquet")
        for _ in range(1000):
            writer.add({"a": 1})
        writer.add(odd)
        with pytest.raises(InputError, match="Write JSONL instead"):
            writer.close()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"name": "../x"}, "is not a name"),
        ({"name": ""}, "is not a name"),
        ({"format": "csv"}, "jsonl, parquet"),
        ({"drop": ["leak"]}, "dropped by data.deduplicate"),
        ({"drop": ["nonsense"]}, "empty_answer"),
    ],
)
def test_wrong_requests_are_sentences(keep: Callable[..., Any], args: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        keep([chat("a", "b")], **args)


def test_every_finding_of_a_row_can_be_left_out() -> None:
    from studio.data.prepare.findings import CHECKS, NOTES

    of_pairs = {"duplicate", "near_duplicate", "leak", "near_leak"}
    assert set(DROPPABLE) == (set(CHECKS) | set(NOTES)) - of_pairs
