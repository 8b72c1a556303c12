"""More files and rows that are wrong in ways of their own: what is said is true, and what it advises helps.

The first of their kind are in `test_wrong_files`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.data.files.datafiles import read_rows
from studio.data.formats.conversations import turn_notes
from studio.data.formats.rows import detect_format, fitting_kind, fitting_kinds, kind_of, parse_row
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.methods import RowKind
from studio.settings import Settings
from tests.data.readers.test_wrong_files import ROW, ROWS, refused, rows_of
from tests.data.rows import A, Q, S, parse

Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        ("Привет, мир! Как твои дела сегодня?", "cp1251", "WINDOWS-1251"),
        ("Привет, мир! Как твои дела сегодня?", "koi8-r", "KOI8-R"),
        ("こんにちは、世界です。東京は首都です。", "shift-jis", "SHIFT_JIS"),
        ("こんにちは、世界です。東京は首都です。", "euc-jp", "EUC-JP"),
        ("안녕하세요, 세계입니다. 오늘 날씨가 좋네요", "euc-kr", "EUC-KR"),
        ("你好,世界。今天天气很好,我们去公园。", "gb18030", "GB18030"),
        ("你好嗎,世界很大。今天天氣很好,我們去公園。", "big5", "BIG5"),
        ("Grüße aus München, schöne Straße", "latin-1", "ISO-8859-1"),
        ("a “quoted” word – and a dash", "cp1252", "WINDOWS-1252"),
    ],
)
def test_the_encoding_that_is_named_gives_the_text_back(write: Writer, text: str, codec: str, name: str) -> None:
    path = write("rows.jsonl", json.dumps({"prompt": text, "completion": "b"}, ensure_ascii=False).encode(codec))
    error = refused(path)
    assert f"looks like {name}" in error.what
    assert text[1] in error.fix.split("That decodes to ")[1], "a person sees whether the letters are right"
    command = re.search("`(.*)`", error.fix)
    assert command is not None
    subprocess.run(command[1], shell=True, cwd=path.parent, check=True)
    assert rows_of(path.parent / "utf8-rows.jsonl") == [{"prompt": text, "completion": "b"}]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (ROW + "\n\ufeff" + ROW, "U+FEFF"),
        ("\ufeff\ufeff" + ROW, "U+FEFF"),
        ("\u200b" + ROW, "U+200B"),
        (ROW + "\n\u00a0\n", "U+00A0"),
        ("\x1e" + ROW, "U+001E"),
        (ROW + "\u2028" + ROW, "U+2028"),
        ('{"prompt": "a\x07", "completion": "b"}', "\\u0007"),
        (ROW + "}", "Remove '}'"),
        (ROW + ";", "Remove ';'"),
        (ROW + " // first", "comment"),
        ("```json\n" + ROW, "```"),
        ("{“prompt”: “a”}", "straight quotes"),
        ('{\\"prompt\\": \\"a\\"}', "backslash"),
        ('{"prompt": undefined}', "undefined"),
        (json.dumps(ROW), "json.dumps"),
        ("404: Not Found", ".txt"),
        ("2026-01-01 started", ".txt"),
        ('"prompt": "a"', "each line is one JSON object"),
        (f"[{ROW}]\n[{ROW}]", "one list"),
        (f"[[{json.dumps(Q)}, {json.dumps(A)}]]", '{"messages": [...]}'),
        (f"[{json.dumps(Q)}, {json.dumps(A)}]", '{"messages": ['),
        (f"[[{ROW}], [{ROW}]]", "inner list"),
    ],
)
def test_more_broken_json_names_its_mend(write: Writer, content: str, word: str) -> None:
    error = refused(write("rows.jsonl", content))
    assert word in error.fix
    assert ("own line" in error.fix) is False


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("prompt,completion\ra,b\rc,d\n", "carriage return"),
        ("x" * 200_000 + "\na\n", "no format"),
        ('prompt, completion\n"a", "b, c"\n', "space before an opening quote"),
        ('prompt, completion\n"a", "b"\n', "space before an opening quote"),
        ("prompt^completion\na^b\n", "sep=^"),
        ("My export\nprompt,completion\na,b\n", "title"),
        ("| prompt | completion |\n|---|---|\n| a | b |\n", "Markdown"),
        ("What is 2+2?,4\nWhat is 3+3?,6\n", "add a header with such names above it"),
    ],
)
def test_a_broken_table_names_its_mend(write: Writer, content: str, word: str) -> None:
    assert word in refused(write("rows.csv", content)).sentence


def test_quotes_within_cells_are_no_late_quotes(write: Writer) -> None:
    cells = ['say, "hi", she said', ' "b"', 'a\n "b", c', "x, ", 'he said "no"']
    for cell in cells:
        text = io.StringIO()
        csv.writer(text).writerows([["prompt", "completion"], [cell, cell]])
        assert rows_of(write("rows.csv", text.getvalue().encode())) == [{"prompt": cell, "completion": cell}]
    assert rows_of(write("sep.csv", "sep=^\nprompt^completion\na^b\n")) == [{"prompt": "a", "completion": "b"}]


@pytest.mark.parametrize("other", ["validation", "test"])
@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_no_list_of_rows_is_left_out_in_silence(write: Writer, other: str, behind: bool, indent: int | None) -> None:
    parts = [("train", ROWS), (other, ROWS)]
    error = refused(write("rows.json", json.dumps(dict(parts if behind else reversed(parts)), indent=indent)))
    assert f"'{other}'" in error.what and "data.validation" in error.fix
    assert rows_of(write("one.json", json.dumps({"train": ROWS, "info": [{"by": "me"}]}, indent=indent))) == ROWS


def test_rows_by_names_are_a_table_and_turns_of_texts_are_none(write: Writer) -> None:
    assert "orient='index'" in refused(write("ids.json", json.dumps({"a1": ROWS[0], "b2": ROWS[1]}))).fix
    assert "pandas" not in refused(write("turns.jsonl", json.dumps({"messages": ["hi", "hello"]}))).fix
    pair = {"prompt": Q, "chosen": A}
    assert rows_of(write("pair.json", json.dumps(pair))) == [pair]


@pytest.mark.parametrize(
    ("row", "kind", "word"),
    [
        ({"messages": [Q, {"role": "assistant", "content": None}]}, "answers", "or remove the row"),
        ({"messages": [Q, {"role": "assistant", "content": {"text": "a"}}]}, "answers", "the string itself"),
        ({"messages": [{**Q, "text": "other"}, A]}, "answers", "Remove all but one"),
        ({"messages": [S, Q, A], "system": "other"}, "answers", "Remove one"),
        ({"messages": [{**Q, "role": 0}, A]}, "answers", "Use one of: system, user, assistant, tool"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "pairs", "Add the answer"),
        ({"chosen": "Human: q", "rejected": "Human: q Assistant: b"}, "pairs", "Fill in prompt"),
        ({"prompt": "q", "completion": "a"}, "pairs", "method.name: sft"),
        ({"prompt": "q", "completion": "a", "label": "good"}, "rated", "Write true"),
    ],
)
def test_rows_that_are_wrong_name_their_mend(row: dict[str, Any], kind: RowKind, word: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(kind, row)
    assert word in caught.value.fix
    assert "tags" not in caught.value.fix or row["messages"][0].get("text")


@pytest.mark.parametrize(("label", "truth"), [("TRUE", True), ("1", True), ("false ", False), ("0", False)])
def test_a_table_of_text_has_labels(write: Writer, label: str, truth: bool) -> None:
    path = write("rows.csv", f"prompt,completion,label\nq,a,{label}\n")
    ((number, row),) = read_rows(path)
    assert parse_row(row, number, path, detect_format([(number, row)], path, "rated"), "rated").label is truth


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "a", "label": 1}, "answers"),
        ({"prompt": "q", "response": "a"}, "answers"),
        ({"prompt": "q", "completion": "a", "label": 1}, "rated"),
        ({"question": "q", "preferred": "a", "dispreferred": "b"}, "pairs"),
        ({"prompt": "q", "chosen": "a"}, "pairs"),
        ({"prompt": "q"}, "prompts"),
        ({"question": "q", "id": 1}, "answers"),
    ],
)
def test_a_file_is_inspected_for_the_method_that_its_rows_are_for(row: dict[str, Any], kind: RowKind) -> None:
    assert kind_of(row) == kind


def test_rows_for_no_method_suggest_none() -> None:
    assert fitting_kind({"a": 1, "b": 2}) is None
    assert fitting_kind({"prompt": "q", "chosen": "a", "rejected": "b"}) == "pairs"
    assert {"pairs", "rated"} <= set(fitting_kinds({"prompt": "q", "chosen": "a", "rejected": "b"}))
    assert set(fitting_kinds({"messages": [{"role": "user", "content": "q"}]})) == {"answers", "prompts"}


@pytest.mark.parametrize(
    ("messages", "notes"),
    [
        ([S, Q, A, Q, A], ()),
        ([Q, {**A, "tool_calls": []}, {"role": "tool", "content": "3"}, A], ()),
        ([S, S, Q, A], ("turns",)),
        ([Q, S, A], ("turns",)),
        ([Q, Q, A], ("turns",)),
        ([Q, A, A], ("turns",)),
        ([A, Q, A], ("turns",)),
        ([Q, A, Q], ("turns",)),
        ([{**Q, "content": "\u200b"}, A], ("no_question",)),
    ],
)
def test_turns_out_of_order_and_empty_questions_are_noted(
    messages: list[dict[str, Any]], notes: tuple[str, ...]
) -> None:
    assert turn_notes(messages) == notes


def test_the_inspection_tells_of_turns_and_questions(model_path: Path, settings: Settings, write: Writer) -> None:
    path = write(
        "turns.jsonl", [{"messages": [Q, Q, A]}, {"messages": [{**Q, "content": " "}, A]}, {"messages": [Q, A]}]
    )
    found = WholeOperations(settings).run("inspect", {"path": str(path), "model": str(model_path)}, lambda *told: None)
    told = {one["check"]: (one["level"], one["count"], one["rows"]) for one in found["findings"]}
    assert told == {"turns": ("warning", 1, (1,)), "no_question": ("warning", 1, (2,))}
