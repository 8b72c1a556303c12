"""Formats × kinds of file: the same rows come back from each kind and packing, and are understood as their format."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from studio.data.files.datafiles import read_rows
from studio.data.formats.rows import detect_format, kind_of, parse_row
from studio.errors import InputError
from tests.data.readers.kinds import PACKINGS, WRITERS, parquet, table

Write = Callable[..., Path]
TRICKY = 'olá 🙂, "quoted"; tab\there\nsecond line'


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# Each format as people have it: three rows, with line breaks, quotes, commas and letters beyond ASCII.
FORMATS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": _turns(TRICKY, f"answer {n}")} for n in range(3)],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": TRICKY}, {"from": "gpt", "value": f"{n}"}]} for n in range(3)
    ],
    "prompt_completion": [{"prompt": TRICKY, "completion": f' {{"name": "n{n}"}}'} for n in range(3)],
    "chat_completion": [
        {"prompt": _turns("a", "b")[:1], "completion": [{"role": "assistant", "content": f"{n}"}]} for n in range(3)
    ],
    "instruction": [{"instruction": TRICKY, "input": "[1, 2]", "output": f"00{n}"} for n in range(3)],
    "preference": [{"prompt": TRICKY, "chosen": f"good {n}", "rejected": "bad"} for n in range(3)],
    "chat_preference": [
        {"chosen": _turns("a", f"good {n}"), "rejected": _turns("a", "bad")} for n in range(3)
    ],
    "ranked_sharegpt": [
        {
            "conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": f"good {n}"},
            "rejected": {"from": "gpt", "value": "bad"},
        }
        for n in range(3)
    ],
    "rated": [{"prompt": TRICKY, "completion": f"{n}", "label": n == 1} for n in range(3)],
    "prompts": [{"prompt": _turns("2+2?", "")[:1], "answer": f"{n}"} for n in range(3)],
    "text": [{"text": f"first line {n}\n  second, \"line\" 🙂"} for n in range(3)],
}  # fmt: skip
# CSV knows only text: True is read as the text "true".
CANNOT = {("rated", "rows.csv"), ("rated", "rows.tsv")}
CASES = [
    (name, file, packing)
    for name in FORMATS
    for file in WRITERS
    for packing in PACKINGS
    if (file != "rows.txt" or name == "text") and (name, file) not in CANNOT
]


@pytest.mark.parametrize("name, file, packing", CASES)
def test_the_same_rows_from_every_kind(write: Write, name: str, file: str, packing: str) -> None:
    rows = FORMATS[name]
    path = write(file + packing, PACKINGS[packing](WRITERS[file](rows)))
    read = list(read_rows(path))
    assert [row for _, row in read] == rows
    kind = kind_of(read[0][1])
    form = detect_format(read[:1], path, kind)
    assert [parse_row(row, number, path, form, kind).format for number, row in read] == [form] * 3


def test_the_table_is_whole() -> None:
    # 10 formats in 7 kinds and text in 8, three packings each, but for ratings in CSV and TSV.
    assert len(CASES) == (10 * 7 + 8 - 2) * 3


def test_row_numbers(write: Write) -> None:
    def numbers(name: str, content: str | bytes) -> list[int]:
        return [number for number, _ in read_rows(write(name, content))]

    # The row of a spreadsheet; the second record takes two lines.
    assert numbers("a.csv", 'text\n"a\nb"\n\nc\n') == [2, 4]
    assert numbers("b.csv", "\n\ntext\nc\n") == [4]
    assert numbers("a.txt", "one\ntwo\n\n\n \nthree\n") == [1, 6]
    assert numbers("a.parquet", parquet([{"text": "a"}] * 5)) == [1, 2, 3, 4, 5]


def test_content_says_the_kind_before_the_name(write: Write) -> None:
    rows = FORMATS["messages"]
    for file, packed in (("rows.parquet", ".zst"), ("stream.arrow", ".gz"), ("rows.arrow", ""), ("rows.jsonl", ".gz")):
        path = write("no-ending", PACKINGS[packed](WRITERS[file](rows)))
        assert [row for _, row in read_rows(path)] == rows


def test_the_index_of_pandas_keeps_the_name_that_pandas_gives_it(write: Write) -> None:
    for text in (",prompt,completion\n0,q,a\n", '"","prompt","completion"\n"0","q","a"\n'):
        ((number, row),) = read_rows(write("x.csv", text))
        assert (number, row) == (2, {"Unnamed: 0": "0", "prompt": "q", "completion": "a"})
        assert parse_row(row, number, "x.csv", "prompt_completion").unused == ("Unnamed: 0",)


def test_a_quoted_cell_of_a_tsv_may_hold_lines_and_tabs(write: Write) -> None:
    code = "def f():\n\treturn 1"
    for name, text in (
        ("x.tsv", f'a\tb\nq\t"{code}"\nr\t"a ""b""\nc"\n'),
        ("x.tsv", f'a\tb\tc\nq\t"{code}"\tx\nr\t"x\nu\tv"\t\n'),
        ("x.tsv", 'a\n"q\nr"\n'),
        ("x.csv", 'a,b\nq,"x\nu\tv"\n'),
    ):
        assert all("\n" in "".join(row.values()) for _, row in read_rows(write(name, text)))


def test_delimiters_and_cells(write: Write) -> None:
    assert list(read_rows(write("x.csv", "\ufeffprompt;completion\r\na,b;1\r\n"))) == [
        (2, {"prompt": "a,b", "completion": "1"})
    ]
    assert list(read_rows(write("x.tsv", "prompt\tcompletion\na;b\t\n"))) == [(2, {"prompt": "a;b", "completion": ""})]
    # An answer that is JSON stays text; only messages are read.
    answers = ['[{"name": "x"}]', '{"role": "admin"}', "[1, 2]", "[unfinished", '{"a": 1, "a": 2}']
    rows = [{"prompt": "p", "completion": answer} for answer in answers]
    assert [row for _, row in read_rows(write("x.csv", table(rows)))] == rows
    tools = [{"messages": _turns("a", "b"), "tools": [{"type": "function"}]}]
    assert [row for _, row in read_rows(write("x.csv", table(tools)))] == tools


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("x.csv", "a,b\n1,2\n1,2,3\n", ["row 3", "the row has 3 cells, the header has 2: a, b", "commas"]),
        ("x.csv", "a;b\n1\n", ["row 2", "the row has 1 cell, the header", "semicolons"]),
        ("x.csv", "a,a\n1,2\n", ["row 1", "two columns are named 'a'"]),
        ("x.csv", "a,,b\n1,2,3\n", ["row 1", "column 2 of the header has no name"]),
        ("x.csv", ",\n1,2\n", ["row 1", "column 1 of the header has no name"]),
        ("x.csv", ",a,\n1,2,3\n", ["row 1", "column 1 of the header has no name"]),
        ("x.csv", ",a,Unnamed: 0\n1,2,3\n", ["row 1", "two columns are named 'Unnamed: 0'"]),
        ("x.tsv", 'a\tb\nq0\tx\nq1\t"Hello\nq2\tfine\nq3\tend"\nq4\tx\n',
         ["row 3", "rows seem to be swallowed by a quote that begins a cell", "lines 3 to 5", "Double the quote"]),
        ("x.tsv", 'a\tb\tc\nq1\t"Hello\tx\nq2\ty\tz"\n', ["row 2", "rows seem to be swallowed", "lines 2 to 3"]),
        ("x.csv", "a,b\n", ["a header but no rows"]),
        ("x.csv", 'a\nx\n"never closed\ny\n', ["row 3", "begins on line 3 is not closed", "Close the quote"]),
        ("x.csv", 'a\n"b" c\n', ["row 2", "bad quotes in line 2", "Double a quote"]),
        ("x.csv", "a\nb\rc\n", ["row 2", "a lone carriage return", "tr '"]),
        ("x.csv", "a\n" + "b\n" * 40_000 + "\0\n", ["line 40002 contains a NUL"]),
        ("x.csv", 'messages\n"[{""role"": 1,}]"\n', ["row 2, field 'messages'", "bad JSON", "Remove the comma"]),
        ("x.csv", "messages\nhello\n", ["row 2, field 'messages'", "expected a JSON list, got: hello"]),
        ("x.csv", "messages\n\"[{'role': 'user'}]\"\n", ["field 'messages'", "double quotes instead of single"]),
        ("x.csv", '{"text": "a"}\n', ["the file contains JSON, but its name says CSV", "Rename it to x.jsonl"]),
        ("x.txt", '{"text": "a"}\n', ["the file contains JSON, but its name says text"]),
        ("x.csv", "a,b\ncaf\xe9,x\n".encode("latin-1"), ["byte 0xe9 at offset 7 (line 2)", "iconv -f ISO-8859-1"]),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), ["not UTF-8", "UTF-16"]),
        ("x.csv.gz", PACKINGS[".gz"](b"a\ncaf\xe9\n"), ["gunzip -c x.csv.gz | iconv", "> utf8-x.csv"]),
        ("x.jsonl.gz", PACKINGS[".gz"](b'{"a": 1}\n')[:-9], ["the gzip archive is damaged", "still being written"]),
        ("x.jsonl.gz", PACKINGS[".gz"](b'{"a": 1}\n') + b"more", ["the gzip archive is damaged", "gunzip -t"]),
        ("x.jsonl.zst", PACKINGS[".zst"](b'{"a": 1}\n' * 99)[:-3], ["the zstd archive is damaged", "being written"]),
        ("x.gz", PACKINGS[".gz"](PACKINGS[".zst"](b'{"a": 1}\n')), ["contains another archive", "Unpack it once"]),
        ("x.jsonl.gz", PACKINGS[".gz"](b'{"a": "' + b"a" * 60_000_000 + b'"}'), ["more than 300 times its size"]),
        ("x.jsonl.zst", PACKINGS[".zst"](b'{"a": 1}\n' * 9_000_000), ["more than 300 times its size"]),
        ("x.parquet", b'{"a": 1}\n', ["this is not a Parquet file"]),
        ("x.parquet", parquet([{"a": "b"}])[:-1], ["the Parquet file cannot be read", "copy or download"]),
        ("x.arrow", WRITERS["stream.arrow"]([{"a": "b"}])[:-20], ["the Arrow file cannot be read"]),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_refused(write: Write, name: str, content: str | bytes, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        list(read_rows(write(name, content)))
    for part in [name, *parts]:
        assert part in caught.value.sentence
    assert caught.value.fix


def _parquet(values: Any, kind: Any = None) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * len(values), "x": pyarrow.array(values, kind)}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "value, kind, read",
    [
        (datetime.date(2024, 1, 2), None, "2024-01-02"),
        (1_700_000_000_123_456_789, pyarrow.timestamp("ns", "UTC"), "2023-11-14T22:13:20.123456789+00:00"),
        (datetime.time(1, 2), None, "01:02:00"),
        (decimal.Decimal("1.50"), None, "1.50"),
        (float("nan"), None, None),
        ([("k", 1)], pyarrow.map_(pyarrow.string(), pyarrow.int64()), {"k": 1}),
        ("á".encode(), None, "á"),
        ([[{"y": [1, None]}], None, []], None, [[{"y": [1, None]}], None, []]),
        ([1.5, float("nan")], pyarrow.list_(pyarrow.float32(), 2), [1.5, None]),
        ({"y": None, "z": 2**60}, None, {"y": None, "z": 2**60}),
    ],
)
def test_values_of_parquet(write: Write, value: Any, kind: Any, read: Any) -> None:
    rows = list(read_rows(write("x.parquet", _parquet([None, value], kind))))
    assert rows == [(1, {"text": "a", "x": None}), (2, {"text": "a", "x": read})]
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(
    "value, kind, part",
    [
        (b"\xff\x00", None, "the value is 2 bytes that are not text"),
        (float("inf"), None, "the number is infinite"),
        ([(1, 1)], pyarrow.map_(pyarrow.int64(), pyarrow.int64()), "the keys of the map are not strings"),
        ([("k", 1), ("k", 2)], pyarrow.map_(pyarrow.string(), pyarrow.int64()), "duplicate key"),
        (2**62, pyarrow.timestamp("us"), "out of range"),
    ],
)
def test_values_that_parquet_has_and_rows_have_not(write: Write, value: Any, kind: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        list(read_rows(write("x.parquet", _parquet([None] * 300 + [value], kind))))
    assert caught.value.where == "x.parquet, row 301, field 'x'"
    assert part in caught.value.what
    assert "drop_columns(['x'])" in caught.value.fix


def test_text_that_is_not_utf8_in_parquet(write: Write) -> None:
    held = pyarrow.array([b"ok", b"\xffbad"])
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, held.buffers())
    with pytest.raises(InputError, match=r"row 2, field 'x': the text is not UTF-8: byte 0xff at offset 0"):
        list(read_rows(write("x.parquet", _parquet(texts))))


def test_reading_stays_small(write: Write, tmp_path: Path) -> None:
    # 60 MB in one row group, in a process of its own: its peak is what counts, the mapped file left out.
    rows = [{"messages": _turns("question " * 20, f"{n} " + "answer " * 200)} for n in range(40_000)]
    path = tmp_path / "x.parquet"
    held = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(held, path, compression="none", use_dictionary=False, row_group_size=len(rows))
    assert path.stat().st_size > 50e6
    code = (
        "import sys; from pathlib import Path; from studio.data.files.datafiles import read_rows\n"
        "peak = count = 0\n"
        "for count, _ in read_rows(Path(sys.argv[1])):\n"
        "    if count % 4000 == 1:\n"
        "        status = Path('/proc/self/status').read_text().split('RssAnon:')[1]\n"
        "        peak = max(peak, int(status.split()[0]))\n"
        "        first = peak if count == 1 else first\n"
        "print(count, peak - first)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == len(rows)
    assert grown < 40_000  # kB


def test_the_page_stays_light(write: Write) -> None:
    # What only Parquet, Arrow and Zstandard files need is imported when such a file is read.
    code = (
        "import sys; from pathlib import Path; from studio.data.files.datafiles import read_rows\n"
        "rows = [list(read_rows(Path(name))) for name in sys.argv[1:]]\n"
        "print([name for name in ('pyarrow', 'numpy', 'pandas', 'zstandard') if name in sys.modules])"
    )
    paths = [str(write(f"rows.{end}", WRITERS[f"rows.{end}"](FORMATS["text"]))) for end in ("jsonl", "csv", "txt")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
