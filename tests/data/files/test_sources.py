"""Reading rows: what is accepted, and that any bytes at all give rows or one sentence."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from studio.data.files.datafiles import Stamp, confine, file_sha256, read_rows, resolve_path
from studio.data.files.encoding import likely_encoding
from studio.data.formats.rows import parse_row
from studio.errors import InputError
from studio.settings import ASSETS, Settings

Write = Callable[..., Path]
TWO = [(1, {"text": "á 🙂"}), (2, {"text": "b"})]
ACCEPTED = {
    "JSONL": '{"text": "á 🙂"}\n{"text": "b"}\n',
    "no line end at the end": '{"text": "á 🙂"}\n{"text": "b"}',
    "Windows line ends": '{"text": "á 🙂"}\r\n{"text": "b"}\r\n',
    "BOM": '\ufeff{"text": "á 🙂"}\n{"text": "b"}\n',
    "list": '[{"text": "á 🙂"}, {"text": "b"}]',
    "list over lines": '\n[\n  {"text": "á 🙂"},\n  {"text": "b"}\n]\n',
    "data key": '{"data": [{"text": "á 🙂"}, {"text": "b"}]}',
    "data key over lines": '{\n "version": 1,\n "data": [\n {"text": "á 🙂"},\n {"text": "b"}]}\n',
    "surrogate pair": '{"text": "\\u00e1 \\ud83d\\ude42"}\n{"text": "b"}\n',
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(write: Write, name: str) -> None:
    # The name of the file says nothing: the first character does.
    for file in ("x.json", "x.jsonl", "x"):
        assert list(read_rows(write(file, ACCEPTED[name]))) == TWO


def test_empty_lines_count_as_lines(write: Write) -> None:
    assert [number for number, _ in read_rows(write("x.jsonl", '\n{"text": "a"}\n \n{"text": "b"}\n\n'))] == [2, 4]


@pytest.mark.parametrize(
    "content, parts",
    {
        b"": ["the file is empty"],
        b" \n\n": ["the file is empty"],
        b"[]": ["the list is empty"],
        b"[1, 2]": ["row 1", "a number, not an object: 1"],
        b'{"a": 1}\n[1]\n': ["row 2", "a list, not an object"],
        b'{"a": 1}\n"x"\n': ["row 2", "a string, not an object"],
        b'{"a": 1}\n{"a": NaN}\n': ["row 2", "NaN is not JSON"],
        b'[{"a": -Infinity}]': ["row 1", "-Infinity is not JSON"],
        b'{"a": 1}\n{"a": 1,}\n': ["row 2", "line 2, column", "comma before the closing"],
        b"{'a': 1}\n": ["row 1", "line 1, column 2", "double quotes instead"],
        b'{"a": 1} {"a": 2}\n': ["row 1", "extra data", "own line"],
        b'{"a": 1}\n{\n"a": 2\n}\n': ["row 2", "complete object per line"],
        b'[{"a": 1},\n {"a" 2}]': ["row 2", "line 2, column 7"],
        b'[{"a": 1} {"a": 2}]': ["row 1", "expecting ',' or ']'"],
        b'[{"a": 1}': ["row 1", "the text ends there"],
        b'[{"a": 1}]x': ["row 1", "after the end of the list"],
        b'{\n"a": 1\n}\n': ["one JSON object, not a list of rows"],
        b'{"a": "\\ud800"}\n': ["row 1", "half of a character"],
        b'{"a": 1}\n{"b": {"c": 1, "c": 2}}\n': ["row 2", "the key 'c' appears twice", "Remove one of the two"],
        b'{"a": 1e999}\n': ["row 1", "the number 1e999 is too large"],
        b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}\n": ["row 1", "nested too deeply"],
        b'{"data": [{"a": 1}],\n "rows": [{"a": 2}]}': ["a second list of rows, 'rows'"],
        b'{"data": [\n{"a": 1},\n{"a" 2}]}': ["row 2", "line 3, column 6"],
        b'[{"a": 1},\n{"a": "x': ["row 2", "line 2, column 7", "Close its quotes and brackets"],
        b'{"a": 1' + b"0" * 5000 + b"}\n": ["row 1", "cannot be read"],
        b"[" * 100_000: ["nested too deeply"],
        b"PK\x03\x04zip": ["a ZIP archive"],
        b"PAR1....": ["the Parquet file cannot be read", "copy or download it again"],
        b"BZh9": ["a bzip2 archive", "bunzip2"],
        b"GGUF\x03": ["model.path"],
        b'{"a": "\x00"}\n': ["a binary file"],
    }.items(),
)
def test_refused(write: Write, content: bytes, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        list(read_rows(write("x.jsonl", content)))
    for part in ["x.jsonl", *parts]:
        assert part in caught.value.sentence
    assert caught.value.fix


@pytest.mark.parametrize("encoding, iconv", {
    "latin-1": "ISO-8859-1", "cp1252": "WINDOWS-1252", "utf-16": "UTF-16", "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE", "utf-32-le": "UTF-32LE", "gb18030": "GB18030",
}.items())  # fmt: skip
def test_other_encodings_are_named_and_the_remedy_works(write: Write, encoding: str, iconv: str) -> None:
    texts = {"cp1252": "“até” já", "gb18030": "你好世界"}
    rows = [{"text": "plain"}, {"text": texts.get(encoding, "até já")}]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = write("x y.jsonl", content.encode(encoding))
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert "not UTF-8" in caught.value.what
    assert "offset" in caught.value.what
    assert f"iconv -f {iconv} -t UTF-8 'x y.jsonl'" in caught.value.fix
    # What the sentence says to run gives the rows back.
    converted = write("utf8.jsonl", path.read_bytes().decode(iconv))
    assert [row for _, row in read_rows(converted)] == rows


def test_wrong_byte_is_found(write: Write) -> None:
    path = write("x.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert "x.jsonl, row 2" in caught.value.where
    assert "byte 0xe9 at offset 24 (line 2)" in caught.value.what


def test_huge_line_is_read_and_a_larger_one_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("x.jsonl", '{"text": "' + "a" * 5_000_000 + '"}\n')
    assert len(next(read_rows(path))[1]["text"]) == 5_000_000
    monkeypatch.setattr("studio.data.readers.row.MAX_ROW_BYTES", 1_000_000)
    with pytest.raises(InputError, match="longer than"):
        list(read_rows(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), st.lists
)
ROWS = st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON), min_size=2, max_size=5)
MANY = example_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.long
@MANY
@given(rows=ROWS, ascii_only=st.booleans(), as_list=st.booleans())
def test_round_trip(tmp_path: Path, rows: list[dict[str, Any]], ascii_only: bool, as_list: bool) -> None:
    path = tmp_path / "x.jsonl"
    if as_list:
        text = json.dumps(rows, ensure_ascii=ascii_only)
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_bytes(text.encode("utf-8"))
    assert list(read_rows(path)) == list(enumerate(rows, 1))


@MANY
@given(content=st.binary(max_size=60) | st.text(alphabet='[]{}:,"\\ \n1aNu\x00é', max_size=40).map(str.encode))
def test_hostile_bytes_give_rows_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    try:
        assert all(isinstance(row, dict) for _, row in read_rows(path))
    except InputError as error:
        assert error.what
        assert error.where
        assert error.fix


def test_missing_file_names_the_nearest(write: Write, settings: Settings, tmp_path: Path) -> None:
    write("orders.jsonl", "x")
    with pytest.raises(InputError, match=r"Did you mean 'orders\.jsonl'\?"):
        resolve_path(str(tmp_path / "oders.jsonl"), settings)
    with pytest.raises(InputError, match="does not exist either"):
        resolve_path(str(tmp_path / "no" / "x.jsonl"), settings)


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("file:///data/rows.jsonl", "Give its path alone: /data/rows.jsonl"),
        ("FILE://localhost/data/rows.jsonl", "Give its path alone: /data/rows.jsonl"),
        ("hf://datasets/org/name", "Give the id of the dataset alone: org/name"),
        ("https://huggingface.co/datasets/org/name/tree/main", "Give the id of the dataset alone: org/name"),
        ("s3://bucket/rows.jsonl", "download it, and give its path"),
    ],
)
def test_an_address_is_no_path(settings: Settings, given: str, fix: str) -> None:
    for confined in (False, True):
        with pytest.raises(InputError, match="is an address, not a path") as raised:
            resolve_path(given, settings, confined=confined)
        assert raised.value.fix.endswith(fix)


def test_a_link_to_nothing_is_called_one(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "moved.jsonl")
    with pytest.raises(InputError, match=r"there is no file .* It is a link to .*moved\.jsonl, which is not there"):
        resolve_path(str(tmp_path / "link.jsonl"), settings)


def test_folder_is_read_in_the_order_of_names(write: Write, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "b.jsonl").write_text('{"text": "b"}\n{"text": 5}\n')
    (folder / "a.jsonl").write_text('{"text": "a"}\n')
    (folder / "README.md").write_text("about")
    (folder / "dataset_info.json").write_text("{}")
    (folder / ".hidden.jsonl").write_text("x")
    assert resolve_path(str(folder), settings) == folder
    rows = list(read_rows(folder))
    assert rows == [(1, {"text": "a"}), (1, {"text": "b"}), (2, {"text": 5})]
    # A number knows its file, so what later steps say about a row names it.
    with pytest.raises(InputError, match=r"^b\.jsonl, row 2, field 'text': expected a string"):
        parse_row(rows[2][1], rows[2][0], folder, "text")
    assert [copy.deepcopy(number) for number, _ in rows] == json.loads(json.dumps([number for number, _ in rows]))
    before = (Stamp.of(folder), file_sha256(folder))
    (folder / "c.jsonl").write_text("")
    assert Stamp.of(folder) != before[0] and file_sha256(folder) != before[1]
    with pytest.raises(InputError, match=r"c\.jsonl: the file is empty"):
        list(read_rows(folder))


def test_folder_that_cannot_be_read(write: Write, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    with pytest.raises(InputError, match="the folder has no data files"):
        resolve_path(str(folder), settings)
    (folder / "a.jsonl").symlink_to(write("secret.jsonl", '{"text": "a"}'))
    with pytest.raises(InputError, match="the link points outside its folder"):
        resolve_path(str(folder), settings)
    (folder / "b.csv").write_text("text\na\n")
    with pytest.raises(InputError, match="several kinds: 1 JSON and 1 CSV"):
        resolve_path(str(folder), settings)


def test_demo_and_uploads_resolve(settings: Settings) -> None:
    assert resolve_path("demo/train.jsonl", settings) == ASSETS / "demo" / "train.jsonl"
    settings.uploads.mkdir(parents=True)
    (settings.uploads / "mine.jsonl").write_text("{}")
    assert resolve_path("mine.jsonl", settings) == settings.uploads / "mine.jsonl"


def test_confined_paths(write: Write, settings: Settings) -> None:
    outside = write("secret.jsonl", "{}")
    settings.home.mkdir(exist_ok=True)
    link = settings.home / "link.jsonl"
    link.symlink_to(outside)
    for path in (str(outside), str(link), f"demo/../../../..{outside}", "/etc/passwd", "/no/such/file"):
        with pytest.raises(InputError, match="may not read files there"):
            resolve_path(path, settings, confined=True)
    assert confine(ASSETS / "demo" / "train.jsonl", settings) == (ASSETS / "demo" / "train.jsonl").resolve()


def test_file_sha256(write: Write) -> None:
    assert file_sha256(write("x", b"abc")).startswith("ba7816bf8f01cfea")


def test_likely_encoding_prefers_the_simplest() -> None:
    assert likely_encoding("é".encode("latin-1"), 5) == "ISO-8859-1"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_list_is_the_same_through_any_window(write: Write, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rows = [{"text": "á🙂" * n, "n": [n, -1.5e3, True, None], "s": '\\u0041\\"{['} for n in range(9)]
    for ascii_only in (False, True):
        text = json.dumps(rows, ensure_ascii=ascii_only, indent=1)
        for content in (text, "\ufeff" + text, '{"v": [1, [2]], "data": ' + text + ', "w": {}}'):
            monkeypatch.setattr("studio.data.readers.json_window._CHUNK", chunk)
            assert list(read_rows(write("x.json", content))) == list(enumerate(rows, 1))


def test_wrong_byte_in_a_list_is_found_behind_the_window(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.data.readers.json_window._CHUNK", 16)
    content = b'[{"text": "aaaaaaaaaaaaaaaaaaa"},\n{"text": "b"},\n{"text": "\xe9\xe8"}]'
    with pytest.raises(InputError, match=rf"byte 0xe9 at offset {content.index(0xE9)} \(line 3\)"):
        list(read_rows(write("x.json", content)))
    broken = b'[{"text": "aaaaaaaaaaaaaaaaaaa"},\n{"text": "b"}, {"text": bbb                             }]'
    with pytest.raises(InputError, match="row 3: bad JSON at line 2, column 25"):
        list(read_rows(write("y.json", broken)))


def test_large_list_takes_little_memory(write: Write) -> None:
    row = json.dumps({"text": "word " * 2000})
    path = write("x.json", "[" + ",".join([row] * 3000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 3000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 25e6
    assert peak < 4e6
