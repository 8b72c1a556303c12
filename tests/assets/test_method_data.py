"""The demo data of preferences, sums and text is what its script writes; test rows are new, answers are right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parents[2] / "assets" / "demo"
NAMES = ("pairs", "sums", "text")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_methods", DEMO / "make_methods.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name: str, part: str) -> list[dict]:
    return [json.loads(line) for line in (DEMO / f"{name}_{part}.jsonl").read_text("utf-8").splitlines()]


def test_the_script_writes_the_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    script.main(tmp_path)
    for name in NAMES:
        for part in script.ROWS:
            file = f"{name}_{part}.jsonl"
            assert (tmp_path / file).read_bytes() == (DEMO / file).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_rows_differ_and_test_rows_are_new(name: str) -> None:
    train, test = ([json.dumps(row) for row in rows(name, part)] for part in ("train", "test"))
    assert len(set(train)) == len(train) >= 100
    assert len(set(test)) == len(test) == 60
    assert not set(train) & set(test)


def test_sums_are_right() -> None:
    for part in ("train", "test"):
        for row in rows("sums", part):
            text = row["prompt"][0]["content"].removesuffix(" Reply with the number only.")
            numbers = [int(word.strip("?.")) for word in text.split() if word.strip("?.").isdigit()]
            assert sum(numbers) == int(row["answer"])


def test_a_pair_is_the_same_fact_in_two_styles() -> None:
    for row in rows("pairs", "train"):
        better, worse = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert better != worse
        assert any(word in better for word in ("kilometres", "kilograms", "Celsius", ":"))
        assert any(word in worse for word in ("miles", "pounds", "Fahrenheit", "p.m."))
