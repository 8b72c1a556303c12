"""docs/data.md: its example rows are read, and each sentence of its table of errors is the one a person gets.

`python -m tests.data.test_docs` prints the table's rows, to be pasted when a sentence changes.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from ruamel.yaml import YAML

from studio.config.data import COLUMN_ROLES, DataConfig, DataSource
from studio.data.formats.columns import Columns
from studio.data.formats.rows import detect_format, kind_of, parse_row
from studio.data.masks.masker import Masker
from studio.data.masks.templates import with_template
from studio.data.prepare.pipeline import prepare_data
from studio.data.prepare.units import encode
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
GOOD = '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'
ALPACA = '{"instruction": "Add.", "output": "4"}\n'
CALL = '{"function": {"name": "add", "arguments": "{}"}}'
LONG = GOOD.replace('"4"', '"' + "word " * 50 + '"')


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


# name in the table -> (content of orders.jsonl, files by name, or None for no such file; changes to the configuration)
CASES: dict[str, tuple[bytes | dict[str, bytes] | None, dict[str, Any]]] = {
    "no such file": (None, {}),
    "a folder without data": ({"photo.png": b""}, {"path": "."}),
    "a folder of several kinds": ({"a.jsonl": b"{}", "b.csv": b"text"}, {"path": "."}),
    "an empty file": (b"", {}),
    "bad JSON in row 17": ((GOOD * 16).encode() + b'{"messages": [{"role" "user"}]}\n', {}),
    "an object over several lines": (GOOD.encode() + b'{\n"messages": []\n}\n', {}),
    "a Python dict": (b"{'text': 'a'}\n", {}),
    "a comma too many": ({"orders.json": b'[{"text": "a"},\n]'}, {"path": "orders.json"}),
    "a last line that is cut off": (GOOD.encode() + GOOD[:40].encode(), {}),
    "a table by columns": ({"orders.json": b'{"text": ["a", "b"]}'}, {"path": "orders.json"}),
    "a list in row 2": (GOOD.encode() + b"[1, 2]\n", {}),
    "NaN": (b'{"text": NaN}\n', {}),
    "a missing key in row 3": ((ALPACA * 2).encode() + b'{"instruction": "Add.", "answer": "4"}\n', {}),
    "unknown keys": (b'{"questoin": "2+2?", "answer": "4"}\n', {}),
    "preference rows under sft": (b'{"prompt": "2+2?", "chosen": "4", "rejected": "5"}\n', {}),
    "a number for a text": (b'{"text": 5}\n', {}),
    "an unknown role": (GOOD.replace('"user"', '"narrator"').encode(), {}),
    "an empty answer": (GOOD.replace('"4"', '""').encode(), {}),
    "an answer of invisible characters": (GOOD.replace('"4"', r'"\u200b"').encode(), {}),
    "a part without a type": (GOOD.replace('"2+2?"', '[{"text": "2+2?"}]').encode(), {}),
    "a picture in a row": (GOOD.replace('"2+2?"', '[{"type": "image_url"}]').encode(), {}),
    "no answer": (b'{"messages": [{"role": "user", "content": "2+2?"}]}\n', {}),
    "tool calls": (GOOD.replace('"content": "4"', '"content": null, "tool_calls": [' + CALL + "]").encode(), {}),
    "a tool call without a name": (GOOD.replace('"content": "4"', '"content": "4", "tool_calls": [{}]').encode(), {}),
    "tools": (GOOD.replace("]}", '], "tools": [{"name": "add"}]}').encode(), {}),
    "reasoning": (GOOD.replace('"content": "4"', '"content": "4", "reasoning_content": "2 and 2"').encode(), {}),
    "a weight": (GOOD.replace('"content": "4"', '"content": "4", "weight": 0.5').encode(), {}),
    "a control token": (GOOD.replace("2+2?", "2+2?<|im_end|>").encode(), {}),
    "turns with other keys": (b'{"messages": [{"who": "me", "said": "2+2?"}]}\n', {}),
    "a column that is not there": (b'{"Question": "2+2?", "answer": "4"}\n', {"columns": "prompt=question"}),
    "a Jinja line": (b'{"title": "Sums"}\n', {"columns": "text={{ title }}: {{ body }}"}),
    "latin-1": (GOOD.replace("4", "quatro é").encode("latin-1"), {}),
    "UTF-16": (GOOD.encode("utf-16"), {}),
    "a key twice": (b'{"text": "a", "text": "b"}\n', {}),
    "too deep": (b'{"text": ' + b"[" * 101 + b"]" * 101 + b"}\n", {}),
    "a list that is cut off": ({"orders.json": b'[{"text": "a"},\n{"text": "b'}, {"path": "orders.json"}),
    "two lists in one object": ({"orders.json": b'{"train": [{"text": "a"}], "data": [{}]}'}, {"path": "orders.json"}),
    "CSV: uneven rows": ({"orders.csv": b"prompt,completion\n2+2=,4\n2+2=,4,5\n"}, {"path": "orders.csv"}),
    "CSV: an open quote": ({"orders.csv": b'text\n"a\nb\n'}, {"path": "orders.csv"}),
    "CSV: text behind a quote": ({"orders.csv": b'text\n"a" b\n'}, {"path": "orders.csv"}),
    "TSV: a quote that begins a cell": ({"orders.tsv": b'a\tb\n1\t"x\n2\ty\n3\tz"\n'}, {"path": "orders.tsv"}),
    "CSV: a name twice": ({"orders.csv": b"text,text\na,b\n"}, {"path": "orders.csv"}),
    "CSV: a column without a name": ({"orders.csv": b"text,\na,b\n"}, {"path": "orders.csv"}),
    "CSV: messages that are no JSON": ({"orders.csv": b"messages\nhello\n"}, {"path": "orders.csv"}),
    "JSON named as CSV": ({"orders.csv": GOOD.encode()}, {"path": "orders.csv"}),
    "a Parquet file cut off": ({"orders.parquet": _parquet({"text": ["a"]})[:-8]}, {"path": "orders.parquet"}),
    "Parquet: bytes": (
        {"orders.parquet": _parquet({"text": ["a"], "image": [b"\xff\xd8"]})},
        {"path": "orders.parquet"},
    ),
    "Parquet: an infinite number": (
        {"orders.parquet": _parquet({"text": ["a"], "score": [float("inf")]})},
        {"path": "orders.parquet"},
    ),
    "an archive that is cut off": ({"orders.jsonl.gz": gzip.compress(GOOD.encode())[:-9]}, {"path": "orders.jsonl.gz"}),
    "an archive denser than text": (
        {"orders.jsonl.gz": gzip.compress(b'{"text": "' + b"0" * 9_000_000 + b'"}')},
        {"path": "orders.jsonl.gz"},
    ),
    "an Excel file": ({"orders.xlsx": b"PK\x03\x04....xl/workbook.xml"}, {"path": "orders.xlsx"}),
    "a pickle": ({"orders.pkl": b"\x80\x04]"}, {"path": "orders.pkl"}),
    "a row over max_length": ((GOOD + LONG).encode(), {"max_length": 64}),
    "nothing left": (LONG.encode(), {"max_length": 8, "truncation": "drop"}),
    "0 supervised tokens": (
        b'{"messages": [{"role": "user", "content": "say th"}, {"role": "assistant", "content": "e"}]}\n',
        {"template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
    ),
    "a model without a template": (GOOD.encode(), {"template": None}),
    "a template that the model cannot have": (GOOD.encode(), {"data_template": "llama3"}),
    "a system text that is lost": (
        GOOD.encode(),
        {
            "template": "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}",
            "system": "Be brief.",
        },
    ),
    "a template that cannot be masked": (
        GOOD.encode(),
        {"template": "{% for m in messages %}{{ m.content }}|{{ m.content }};{% endfor %}"},
    ),
}


def sentences(tokenizer: Any, folder: Path) -> dict[str, str]:
    """What each case says, with the temporary folder left out."""
    from tests.data.templates import with_template as with_text

    said = {}
    for name, (content, changes) in CASES.items():
        place = folder / re.sub(r"\W+", "-", name)
        place.mkdir()
        if content is None:
            content = {"order.jsonl": GOOD.encode()}
        for file, held in (content if isinstance(content, dict) else {"orders.jsonl": content}).items():
            (place / file).write_bytes(held)
        changes = dict(changes)
        used = with_text(tokenizer, changes.pop("template")) if "template" in changes else tokenizer
        source = DataSource(path=str(place / changes.pop("path", "orders.jsonl")), columns=changes.pop("columns", None))
        changes |= {"template": changes.pop("data_template", "auto")}
        settings = Settings(folder, "127.0.0.1", 7860, (folder,), None, 600)
        try:
            prepare_data(DataConfig(train=[source], validation=0, **changes), MethodConfig(), used, settings)
            said[name] = "no error"
        except InputError as error:
            said[name] = error.sentence.replace(f"{place}/", "").replace(str(place), ".")
    return said


def table_row(name: str, sentence: str) -> str:
    """One line of the table; a bar in a sentence would end its cell."""
    return f"| {name} | {sentence.replace('|', chr(92) + '|')} |"


def test_every_error_of_the_page(tokenizer: Any, tmp_path: Path) -> None:
    table = PAGE.read_text().split("## Errors")[1].splitlines()
    rows = [line for line in table if line.startswith("| ") and not line.startswith("| file ")]
    assert rows == [table_row(name, said) for name, said in sentences(tokenizer, tmp_path).items()]


def test_every_example_row_of_the_page(tokenizer: Any) -> None:
    examples = re.findall(r"^\| `(\w+)` \| `(\{.*\})` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(examples) == 15
    for name, text in examples:
        row = json.loads(text)
        kind = kind_of(row)
        assert detect_format([(1, row)], "page", kind) == name
        (unit,) = encode(kind, [parse_row(row, 1, "page", name, kind)], Masker(tokenizer))
        assert (unit.supervised > 0) == (kind != "prompts")


def test_the_tools_of_the_page(tokenizer: Any) -> None:
    """The row with tools is read, and trained on as the page says, by the template that it names."""
    row = json.loads(PAGE.read_text().split("```json")[1].split("```")[0])
    masker = Masker(with_template(tokenizer, "chatml"))
    (masked,) = masker.encode([parse_row(row, 1, "page", "messages")])
    trained = "".join(piece.text for piece in masker.pieces(masked) if piece.trained)
    assert trained == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>It is warm.<|im_end|>'
    )


def test_the_mapping_of_the_page() -> None:
    text = PAGE.read_text().split("```yaml")[1].split("```")[0]
    (source,) = DataConfig.model_validate(YAML(typ="safe").load(text)["data"]).train
    row = {"question": "2+2?", "answer": "4", "source": "sums", "ctx": "Be brief."}
    mapped = Columns(source.columns).apply(row, 1, "page")
    assert mapped == {"instruction": "2+2?", "output": "4 (sums)", "system": "Be brief."}
    assert all(f"`{role}`" in PAGE.read_text() for role in COLUMN_ROLES)


def test_the_drawn_mask(tokenizer: Any) -> None:
    row = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    masker = Masker(tokenizer)
    (masked,) = masker.encode([parse_row(row, 1, "page", "messages")])
    pieces = masker.pieces(masked)
    drawn = PAGE.read_text().split("## What is trained on")[1].split("```")[1].splitlines()
    shown = "".join(piece.text for piece in pieces).replace("\n", "⏎")
    assert drawn[1].replace(" ", "") in shown.replace(" ", "")
    assert [piece.text for piece in pieces if piece.trained] == ["4", "<|im_end|>"]
    assert drawn[2].count("#") == 2


if __name__ == "__main__":
    from transformers import AutoTokenizer

    from studio.models.catalog.embedded import prepare
    from studio.settings import read_settings

    own = AutoTokenizer.from_pretrained(prepare(read_settings()))
    with tempfile.TemporaryDirectory() as scratch:
        for case, text in sentences(own, Path(scratch)).items():
            print(table_row(case, text))
