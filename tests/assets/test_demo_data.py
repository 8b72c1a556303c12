"""The demo data is what its script writes, and its test rows are truly new.

Checks the files, not learning: that a model goes from none to nearly all of these rows, the demo run shows.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parents[2] / "assets" / "demo"
KEYS = ["customer", "item", "category", "quantity", "city", "urgency"]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo", DEMO / "make_demo.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script()


@pytest.fixture(scope="module")
def files(script: ModuleType) -> dict[str, list[dict]]:
    return {
        name: [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in script.ROWS
    }


def message(row: dict) -> str:
    return row["messages"][1]["content"]


def record(row: dict) -> dict:
    return json.loads(row["messages"][2]["content"])


def test_the_script_writes_the_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    script.main(tmp_path)
    for name in script.ROWS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (DEMO / f"{name}.jsonl").read_bytes()


def test_every_answer_is_compact_json(script: ModuleType, files: dict[str, list[dict]]) -> None:
    for name, rows in files.items():
        assert len(rows) == script.ROWS[name]
        for row in rows:
            assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
            answer = row["messages"][2]["content"]
            assert list(record(row)) == KEYS
            assert answer == json.dumps(record(row), separators=(",", ":"))


def test_records_say_what_the_messages_say(script: ModuleType, files: dict[str, list[dict]]) -> None:
    category_of = {
        pair.split(":")[0].replace("_", " "): category
        for category, pairs in script.ITEMS.items()
        for pair in pairs.split()
    }
    assert len(category_of) == 48
    for row in (row for rows in files.values() for row in rows):
        text, asked = message(row), record(row)
        assert asked["customer"] in text and asked["city"] in text
        assert asked["category"] == category_of[asked["item"]]
        assert asked["category"] not in text.lower()
        assert asked["urgency"] in script.ENDINGS
        assert type(asked["quantity"]) is int and 1 <= asked["quantity"] < 100


def test_no_row_is_repeated(files: dict[str, list[dict]]) -> None:
    rows = [row for part in files.values() for row in part]
    assert len({message(row) for row in rows}) == len(rows)
    assert len({row["messages"][2]["content"] for row in rows}) == len(rows)


def test_held_out_rows_are_not_near_copies(script: ModuleType, files: dict[str, list[dict]]) -> None:
    words = {name: [script.pairs(message(row)) for row in rows] for name, rows in files.items()}
    for one, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        assert max(script.closeness(a, b) for a in words[one] for b in words[other]) <= script.TOO_CLOSE


def test_half_of_the_held_out_rows_are_about_unseen_people_and_cities(files: dict[str, list[dict]]) -> None:
    known = [record(row) for row in files["train"]]
    people, cities = {row["customer"] for row in known}, {row["city"] for row in known}
    for name in ("validation", "test"):
        rows = [record(row) for row in files[name]]
        new = [row for row in rows if row["customer"] not in people and row["city"] not in cities]
        assert len(new) == len(rows) // 2


def test_training_shows_every_item_and_shape_of_answer(files: dict[str, list[dict]]) -> None:
    known = [record(row) for row in files["train"]]
    for key in ("item", "category", "urgency"):
        assert {record(row)[key] for row in files["test"]} <= {row[key] for row in known}
