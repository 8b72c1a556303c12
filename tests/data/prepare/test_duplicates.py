"""Doubles: what counts as equal and as near, what a run leaves out, and which row stays."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig
from studio.data.formats.answers import Example
from studio.data.formats.rows import parse_row
from studio.data.prepare.duplicates import THRESHOLD, Doubles, fingerprint, shingles, similarity
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]
WORDS = [f"word{number}" for number in range(2000)]


def example(question: str, answer: str, number: int = 1) -> Example:
    return parse_row(chat(question, answer), number, "x.jsonl", "messages")


def text(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def changed(original: str, count: int) -> str:
    words = original.split()
    for at in range(count):
        words[at * len(words) // max(1, count)] = f"other{at}"
    return " ".join(words)


def test_equal_but_for_blanks_is_equal() -> None:
    assert fingerprint(example("a  b\n", "c")) == fingerprint(example(" a b", "c "))
    for other in (example("a b", "C"), example("a", "b c"), example("a b c", "d")):
        assert fingerprint(other) != fingerprint(example("a b", "c"))


def test_a_pair_or_a_rating_is_part_of_a_row() -> None:
    rows: list[Any] = [
        {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "c", "rejected": "b"},
    ]  # fmt: skip
    assert len({fingerprint(parse_row(row, 1, "x", "preference", "pairs")) for row in rows}) == 2
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False)]
    assert len({fingerprint(parse_row(row, 1, "x", "rated", "rated")) for row in rows}) == 2


def test_the_estimate_is_near_the_exact_share() -> None:
    original = text(200, 1)
    for count in (1, 3, 5):
        seen, other = Doubles(), example(changed(original, count), "yes")
        exact = similarity(example(original, "yes"), other)
        assert seen.add(example(original, "yes")) is None
        twin = seen.add(other)
        assert exact > THRESHOLD + 0.05
        assert twin is not None
        assert (twin.first, twin.exact) == (0, False)
        assert twin.similarity == pytest.approx(exact, abs=0.12)  # three standard deviations of 128 hashes
    assert seen.add(example(changed(original, 60), "yes")) is None
    assert seen.add(example(text(200, 2), "yes")) is None


def test_rows_that_differ_in_a_number_are_not_near() -> None:
    seen = Doubles()
    assert [seen.add(example(f"What is {n} plus {n + 1}?", f"{2 * n + 1}")) for n in range(50)] == [None] * 50


def test_a_shared_system_text_does_not_make_rows_alike() -> None:
    seen = Doubles()
    for n in range(3):
        row = {
            "messages": [{"role": "system", "content": text(300, 7)}, *chat(text(10, n), text(5, n + 50))["messages"]]
        }
        assert seen.add(parse_row(row, 1, "x", "messages")) is None


def test_words_of_scripts_without_blanks_are_characters() -> None:
    sentence = "今天天气很好我们一起去公园散步然后回家吃饭看书听音乐再休息一会儿准备明天的工作和学习计划"
    seen = Doubles()
    assert seen.add(example(sentence, "好")) is None
    twin = seen.add(example(sentence.replace("公园", "花园"), "好"))
    assert twin is not None
    assert not twin.exact
    assert len(shingles(example("今天天气", "好"))) == 3


@pytest.fixture
def run(write: Write, tokenizer: Any, settings: Settings) -> Callable[..., Prepared]:
    def prepared(rows: list[Any], validation: list[Any] | float = 0, **changes: Any) -> Prepared:
        held = str(write("held.jsonl", validation)) if isinstance(validation, list) else validation
        config = DataConfig(train=[{"path": str(write("x.jsonl", rows))}], validation=held, **changes)
        return prepare_data(config, MethodConfig(), tokenizer, settings)

    return prepared


def test_a_run_leaves_out_what_it_is_asked_to_and_counts_it(run: Callable[..., Prepared]) -> None:
    near = changed(text(60, 3), 1)
    rows = [chat(text(60, 3), "yes"), chat("a", "b"), chat("a ", "b"), chat(near, "yes"), chat("a", "b")]
    assert [one.row for one in run(rows).train] == [1, 2, 3, 4, 5]
    exact = run(rows, deduplicate="exact")
    assert [one.row for one in exact.train] == [1, 2, 4]
    assert (exact.report.sources[0].rows, exact.report.sources[0].duplicates, exact.report.dropped) == (5, 2, 2)
    (finding,) = [one for one in exact.report.findings if one.check == "duplicate"]
    assert (finding.count, finding.level) == (2, "info")
    assert [one.row for one in run(rows, deduplicate="near").train] == [1, 2]


def test_the_file_for_validation_stays_and_the_training_gives_way(run: Callable[..., Prepared]) -> None:
    done = run([chat("a", "b"), chat("c", "d")], [chat("c", "d"), chat("e", "f"), chat("e", "f")], deduplicate="exact")
    assert [one.row for one in done.train] == [1]
    assert [one.row for one in done.validation] == [1, 2]
    assert [one.duplicates for one in done.report.sources] == [1, 1]
    assert done.report.duplicates_across == 0


def test_the_operation_needs_no_model_and_shows_a_pair(settings: Settings, write: Write) -> None:
    original = text(60, 4)
    path = write("x.jsonl", [chat(original, "yes"), chat("a", "b"), chat(changed(original, 1), "yes"), chat("a", "b")])
    operations = WholeOperations(settings)
    data = {"train": [{"path": str(path)}]}

    def ask(op: str, **args: Any) -> Any:
        return operations.run(op, {"data": data, **args}, lambda *told: None)

    found = ask("duplicates")
    assert (found["rows"], found["exact"], found["near"]) == (4, 1, 1)
    near, exact = sorted(found["pairs"], key=lambda pair: pair["exact"])
    assert [near["first"]["row"], near["second"]["row"]] == [1, 3]
    assert [exact["first"]["at"], exact["second"]["at"], exact["similarity"]] == [2, 4, 1.0]
    shown = ask("pair", first=near["first"], second=near["second"])
    assert shown["first"]["texts"] == [["user", original], ["assistant", "yes"]]
    assert shown["second"]["texts"][0][1] == changed(original, 1)
    assert THRESHOLD < shown["similarity"] < 1
    assert not shown["exact"]
    assert ask("duplicates", near=False)["near"] == 0
    with pytest.raises(InputError, match="there is no row 9"):
        ask("pair", first={"source": 0, "at": 9}, second={"source": 0, "at": 1})
    with pytest.raises(InputError, match="there is no source 3"):
        ask("pair", first={"source": 3, "at": 1}, second={"source": 0, "at": 1})
    with pytest.raises(InputError, match="threshold"):
        ask("duplicates", threshold=0)
