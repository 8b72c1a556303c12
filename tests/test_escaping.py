"""Text of others does nothing in a terminal, in Markdown, in a spreadsheet."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from studio.escaping import for_markdown, for_spreadsheet, for_terminal, json_for_terminal, quoted
from studio.foreign import parse_yaml
from tests.conftest import call_studio

SIGNS = ["\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202egpj.exe", "\x08\x08", "\r overwritten", "\x7f", "\u2066x"]


@pytest.mark.parametrize("sign", SIGNS)
def test_no_terminal_obeys_a_text(sign: str) -> None:
    shown = for_terminal(f"a{sign}b\n\tc")
    assert sign[0] not in shown and shown.startswith("a\\") and shown.endswith("b\n\tc")
    text = json.dumps({"a": sign}, ensure_ascii=False)
    assert sign[0] not in json_for_terminal(text) and json.loads(json_for_terminal(text)) == {"a": sign}


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "a|b", "&lt;b&gt;", "`x`", "a\n# b", "_x_", "a _b"],
)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    shown = for_markdown(name)
    assert "<" not in shown and "\n" not in shown
    for sign in "[]|`_":
        assert shown.count(sign) == shown.count(f"\\{sign}")
    assert "&lt;b" not in shown or "&amp;lt;" in shown or name.startswith("<")


def test_an_underscore_within_a_word_stays() -> None:
    assert for_markdown("layers_to_transform") == "layers_to_transform"


@pytest.mark.parametrize(
    "text", ["a", 'a"b\\', "x\ny: 1", "---\n", "é🎨", "\x85\u2028", "\x1b[2J", "true", "1e3", "*a"]
)
def test_what_is_quoted_is_one_text(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable() and len(shown.splitlines()) == 1
    assert parse_yaml(f"a: {shown}\nb: 1") == {"a": text, "b": 1}
    assert json.loads(shown) == ast.literal_eval(shown) == text


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "＝1+1", "﹦1", "⁼1", "＋1", "﹢1", "－1", "﹣1", "＠a", "﹫a",
     " =1", "\u3000＝1", "\u200b=1", "\ufeff=1", "\t=1", "\ra", "\n=1", "₊1"]
)  # fmt: skip
def test_no_spreadsheet_computes_a_name(cell: str) -> None:
    assert for_spreadsheet(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["demo-2", "a=b", "", "1e-4", "名前", "–", "(best)"])
def test_other_cells_stay(cell: str) -> None:
    assert for_spreadsheet(cell) == cell


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line_writes_them_out(tmp_path: Path, home: Path, as_json: bool) -> None:
    """A column's and a file's name, in what is said and in the sentence of an error."""
    evil = "\x1b]0;owned\x07\x9b2J"
    file = tmp_path / f"rows{evil}.jsonl"
    file.write_text(json.dumps({f"prom{evil}pt": "a", "b": "c"}) + "\n", encoding="utf-8")
    done = call_studio("data", "inspect", str(file), *(["--json"] if as_json else []), home=home)
    assert done.code == 2 and "owned" in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr and "\x9b" not in done.stdout + done.stderr
