"""Files that are no rows, rows that are no JSON, answers that are none: the sentence names the true cause and mend.

Where a mend is a command or a change of the text, the test does it and the file is read.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import read_rows
from studio.data.files.where import emptiness
from studio.data.formats.rows import detect_format, parse_row
from studio.data.prepare.pipeline import prepare_data
from studio.data.quality.contents import check_of
from studio.data.sources.locate import locate, of_file
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import A, Q

Writer = Callable[..., Path]
ROW = '{"prompt": "a", "completion": "b"}'
ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
IN_JSON = "".join(json.dumps(row) + "\n" for row in ROWS)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        rows = list(read_rows(path))
        name = detect_format(rows[:1], path)
        for number, row in rows:
            parse_row(row, number, path, name)
    return caught.value


def zipped(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.text" if name == "mimetype" else "x")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pipe.csv", "prompt|completion\na|b\nc|d\n"),
        ("pipe.tsv", "prompt|completion\na|b\nc|d\n"),
        ("semicolons.csv", "prompt;completion\na;b\nc;d\n"),
        ("tabs.csv", "prompt\tcompletion\na\tb\nc\td\n"),
        ("commas.tsv", "prompt,completion\na,b\nc,d\n"),
        ("excel.csv", "sep=;\nprompt;completion\na;b\nc;d\n"),
        ("bom.csv", "\ufeffprompt,completion\r\na,b\r\nc,d\r\n"),
        ("mac.csv", "prompt,completion\ra,b\rc,d\r"),
        ("mac.jsonl", IN_JSON.replace("\n", "\r")),
        ("mac.jsonl.gz", gzip.compress(IN_JSON.replace("\n", "\r").encode(), mtime=0)),
        ("plain.jsonl", gzip.compress(IN_JSON.encode(), mtime=0)),
        ("plain.csv", gzip.compress(b"prompt,completion\na,b\nc,d\n", mtime=0)),
    ],
)
def test_what_can_be_read_without_a_guess_is_read(write: Writer, name: str, content: Any) -> None:
    assert rows_of(write(name, content)) == ROWS


def test_a_separator_within_a_header_is_told_by_the_row_below(write: Writer) -> None:
    path = write("x.csv", "prompt, the question;completion\n1,5 + 1;2,5\n")
    assert rows_of(path) == [{"prompt, the question": "1,5 + 1", "completion": "2,5"}]
    assert rows_of(write("y.csv", 'a|b,c\n"x|y",z\n')) == [{"a|b": "x|y", "c": "z"}]


def test_lines_of_old_mac_files_keep_their_places(write: Writer, settings: Settings) -> None:
    many = "".join(f'{{"prompt": "q{n}", "completion": "{"a" * 90}"}}\r' for n in range(12_000))
    path = write("many.jsonl", many)
    seen = WholeOperations(settings)._row(of_file(path), 11_999, lambda *told: None)
    assert (seen[0][0], seen[0][1]["prompt"], seen[1]) == (11_999, "q11998", 12_000)
    assert rows_of(write("text.txt", "one\rtwo\r\rthree")) == [{"text": "one\ntwo"}, {"text": "three"}]


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        ('{"prompt": "a", "completion": "b",}\n', ("comma", "")),
        ("[\n" + ROW + ",\n" + ROW + ",\n]\n", ("comma before the closing bracket", "")),
        (ROW + ",\n" + ROW + ",\n", ("comma after each object", "[")),
        ("{'prompt': 'a', 'completion': \"it's\"}\n", ("Python", "json.dumps")),
        ('{"prompt": "a", "completion": None}\n', ("Python", "json.dumps")),
        ("[{'prompt': 'a'}]", ("Python", "json.dumps")),
        ('{"prompt": "a", "score": NaN}\n', ("NaN", "null")),
        ('[{"prompt": "a", "score": -Infinity}]', ("-Infinity", "null")),
        (ROW + ROW + "\n", ("own line", "")),
        (json.dumps(ROWS[0], indent=1) + "\n" + json.dumps(ROWS[1], indent=1), ("same line", "jq -c")),
        ("// rows\n" + ROW + "\n", ("comment", "")),
        ('{"prompt": "a\nb", "completion": "c"}\n', ("quotes", "\\n")),
        ('[{"prompt": "a\nb"}]', ("line break", "\\n")),
        ("prompt,completion\na,b\n", (".csv", "")),
        (ROW + "\n" + ROW[:20], ("truncated", "still being written")),
        (ROW + "\n" + ROW[:-1], ("truncated", "still being written")),
        ("[" + ROW + ",\n" + ROW[:20], ("truncated", "still being written")),
        ("[" + ROW + ",\n", ("truncated", "still being written")),
        ((ROW + "\n").encode() + '{"prompt": "ä'.encode()[:-1], ("truncated", "still being written")),
        ((ROW + "\n").encode() + bytes(4096), ("NUL", "Wait")),
    ],
)
def test_broken_json_names_its_mend(write: Writer, content: str | bytes, mend: tuple[str, str]) -> None:
    error = refused(write("rows.jsonl", content))
    assert all(word in error.sentence for word in mend)
    in_list = content[:1] in ("[", b"[")
    assert not (in_list and "each line" in error.sentence), "the rows of a list are not its lines"


def test_a_list_is_never_told_to_have_a_row_a_line(write: Writer) -> None:
    for row in (
        '{"a": b}',
        '{"a" 1}',
        "{a: 1}",
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        "[" * 200,
        '{"a":1,"a":2}',
    ):
        error = refused(write("rows.json", f"[{ROW},\n{row}]"))
        assert "line is" not in error.fix and "each line" not in error.fix, row


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": ["a", "c"], "completion": ["b", "d"]},
        {"prompt": {"0": "a", "1": "c"}, "completion": {"0": "b", "1": "d"}},
        {"columns": ["prompt", "completion"], "index": [0, 1], "data": [["a", "b"], ["c", "d"]]},
        {"0": {"prompt": "a", "completion": "b"}, "1": {"prompt": "c", "completion": "d"}},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_table_by_columns_names_the_command_that_makes_rows_of_it(
    write: Writer, content: dict[str, Any], indent: int | None
) -> None:
    path = write("table.json", json.dumps(content, indent=indent))
    error = refused(path)
    command = re.search(r'python -c "(.*)"', error.fix)
    assert command is not None
    subprocess.run([sys.executable, "-c", command[1]], cwd=path.parent, check=True)
    assert rows_of(path.parent / "rows.jsonl") == ROWS


def test_a_row_of_lists_is_a_row(write: Writer) -> None:
    row = {"prompt": [Q, A, Q], "completion": [A]}
    assert rows_of(write("one.jsonl", [row])) == [row]
    assert rows_of(write("one.json", [{"messages": [Q, A], "tools": [{"name": "x"}, {"name": "y"}]}])) != []


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("rows.pkl", pickle.dumps(ROWS), "pickle"),
        ("rows.jsonl", pickle.dumps(ROWS, protocol=2), "pickle"),
        ("rows.csv", pickle.dumps(ROWS, protocol=0), "pickle"),
        ("rows.jsonl", pickle.dumps("é", protocol=2), "pickle"),
        ("rows.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}\n\x01\x02", "NumPy"),
        ("rows.npz", zipped("rows.npy"), "NumPy"),
        ("rows.pt", zipped("archive/data.pkl", "archive/version"), "PyTorch"),
        ("rows.docx", zipped("[Content_Types].xml", "word/document.xml"), "Word"),
        ("rows.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), "CSV"),
        ("rows.zip", zipped("rows.jsonl"), "Unpack"),
        ("rows.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "pdftotext"),
        ("rows.rtf", rb"{\rtf1\ansi hello}", "plain text"),
        ("rows.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64), "Office"),
        ("rows.png", b"\x89PNG\r\n\x1a\n" + bytes(16), "an image"),
        ("rows.safetensors", (64).to_bytes(8, "little") + b'{"a": {}}' + b" " * 55 + bytes(8), "model"),
        ("rows.jsonl", b"<!DOCTYPE html>\n<html><title>Sign in</title>", "HTML"),
        ("rows.csv", b"\n<html lang=en>", "HTML"),
        ("rows.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("rows.csv", "prompt,completion\na,b\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("rows.csv", "prompt,completion\na,b\n".encode("utf-16"), "iconv -f UTF-16 "),
        ("rows.txt", f"[{ROW}]".encode(), "JSON"),
    ],
)
def test_a_file_is_named_for_what_it_is(write: Writer, name: str, content: bytes, word: str) -> None:
    error = refused(write(name, content))
    assert word in error.sentence
    assert ("iconv" in error.fix) is word.startswith("iconv")


def test_bytes_of_no_encoding_are_not_told_to_be_converted(write: Writer) -> None:
    for seed in range(20):
        noise = bytes((seed * 37 + at * at * 101) % 255 + 1 for at in range(400))
        assert "iconv" not in refused(write("noise.jsonl", b"\xff\x01" + noise)).fix
    assert "iconv" in refused(write("latin.jsonl", ROW.replace("b", "é").encode("latin-1"))).fix


def test_a_file_that_grows_while_it_is_read_is_refused(tokenizer: Any, write: Writer, settings: Settings) -> None:
    path = write("growing.jsonl", IN_JSON)
    located = locate(DataSource(path=str(path)), settings)
    rows = located.rows(0)
    assert next(rows)[0] == 1
    with path.open("a") as file:
        file.write(ROW[:12])
    with pytest.raises(InputError, match="still being written"):
        list(rows)
    os.truncate(path, len(IN_JSON))
    source = DataSource(path=str(path))
    assert len(prepare_data(DataConfig(train=[source], validation=0), MethodConfig(), tokenizer, settings).train) == 2


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "text", "text": "hi"}, "hi"),
        ({"type": "text", "value": "hi"}, "hi"),
        ({"type": "text", "content": "hi"}, "hi"),
        ({"type": "input_text", "text": "hi"}, "hi"),
        ({"text": "hi"}, None),
        ({"type": "text", "text": "hi", "value": "ho"}, None),
        ({"type": "text", "body": "hi"}, None),
        ({"type": "image_url", "image_url": {"url": "x"}}, None),
        ("hi", None),
    ],
)
def test_parts_of_a_text(part: Any, text: str | None) -> None:
    row = {"messages": [{"role": "user", "content": [part]}, A]}
    if text is not None:
        example = parse_row(row, 1, "x", "messages")
        assert example.messages is not None and example.messages[0]["content"] == text
        return
    with pytest.raises(InputError) as caught:
        parse_row(row, 1, "x", "messages")
    wanted = "Remove the part" if isinstance(part, dict) and part.get("type") == "image_url" else '"text": "..."'
    assert wanted in caught.value.fix


@pytest.mark.parametrize("row", [
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"question": "q", "preferred": "a", "dispreferred": "b"},
    {"messages": [Q], "chosen": A, "rejected": A},
    {"instruction": "q", "output": "a", "chosen": "a", "rejected": "b"},
])  # fmt: skip
def test_preference_rows_under_sft_are_called_so(row: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        parse_row(row, 1, "x", detect_format([(1, row)], "x"))
    assert "preference pairs" in caught.value.fix and "dpo" in caught.value.fix


INVISIBLE = [
    "",
    " \n",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\u2060\u200d",
    "\u3164",
    "\u2800",
    "\u202e",
    "\ufe0f",
    "\x00",
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_an_answer_that_nobody_can_see_is_empty(text: str) -> None:
    rows: list[tuple[dict[str, Any], Any, Any]] = [
        ({"prompt": "q", "completion": text}, "prompt_completion", "answers"),
        ({"messages": [Q, {**A, "content": text}]}, "messages", "answers"),
        ({"instruction": "q", "output": text}, "instruction", "answers"),
        ({"instruction": "q", "output": "a", "history": [["q", text]]}, "instruction", "answers"),
        ({"text": text}, "text", "answers"),
        ({"prompt": "q", "chosen": "a", "rejected": text}, "preference", "pairs"),
        ({"prompt": [Q], "chosen": text, "rejected": "a"}, "preference", "pairs"),
        ({"prompt": "q", "completion": text, "label": True}, "rated", "rated"),
        ({"prompt": text}, "prompts", "prompts"),
    ]
    for row, name, kind in rows:
        with pytest.raises(InputError) as caught:
            parse_row(row, 1, "x", name, kind)
        assert check_of(caught.value) == "empty_answer", row


@pytest.mark.parametrize("text", ["a", "0", "👩‍👩‍👧", "ก็", "\u200bא", "…", "\\", "¶", "a\u0301"])
def test_an_answer_that_can_be_seen_is_one(text: str) -> None:
    assert emptiness(text) == ""


def test_rows_over_the_limit_are_told_by_the_inspection(model_path: Path, settings: Settings, write: Writer) -> None:
    path = write("long.jsonl", [{"text": "word " * 50}, {"text": "short"}])
    found = WholeOperations(settings).run(
        "inspect", {"path": str(path), "model": str(model_path), "data": {"max_length": 20}}, lambda *told: None
    )
    (finding,) = [one for one in found["findings"] if one["check"] == "too_long"]
    assert (finding["level"], finding["count"]) == ("warning", 1)
    assert str(found["lengths"]["longest"]) in finding["fix"]
