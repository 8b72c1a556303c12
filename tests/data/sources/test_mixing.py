"""Mixing sets: exact counts, the order of `datasets.interleave_datasets`, determinism; the split comes first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.config.data import DataConfig, DataSource
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.sources.mixing import choose, choose_rows, mix
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]


def config(*weights: float | None, **values: Any) -> DataConfig:
    train = [DataSource(path=f"set{at}.jsonl", weight=weight) for at, weight in enumerate(weights)]
    return DataConfig(train=train, **values)


def shares(order: list[tuple[int, int]]) -> list[int]:
    counts = Counter(at for at, _ in order)
    return [counts[at] for at in range(max(counts) + 1)]


def test_without_weights_every_row_follows_once() -> None:
    assert mix(config(None, None), [2, 3], 1) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("weights", "counts", "stop", "expected"),
    [
        ((1, 1), [10, 4], "first_exhausted", [4, 4]),
        ((3, 1), [30, 40], "first_exhausted", [30, 10]),
        ((0.7, 0.2, 0.1), [100, 100, 100], "first_exhausted", [100, 28, 14]),
        ((1, 1), [10, 4], "all_exhausted", [10, 10]),
        ((3, 1), [30, 40], "all_exhausted", [120, 40]),
        ((0.7, 0.2, 0.1), [100, 100, 100], "all_exhausted", [700, 200, 100]),
        ((2, 1), [3, 1], "all_exhausted", [3, 2]),
    ],
)
def test_weights_give_exact_counts(weights: tuple[float, ...], counts: list[int], stop: Any, expected: Any) -> None:
    order = mix(config(*weights, stopping_strategy=stop), counts, 1)
    assert shares(order) == expected
    assert [at for at, _ in order] == sorted(at for at, _ in order), "concatenate: one set after the other"


def test_interleave_without_weights_takes_turns() -> None:
    order = mix(config(None, None, mix="interleave"), [2, 3], 1)
    assert [at for at, _ in order] == [0, 1, 0, 1]
    every = mix(config(None, None, mix="interleave", stopping_strategy="all_exhausted"), [2, 3], 1)
    assert [at for at, _ in every] == [0, 1] * 3
    assert sorted(row for at, row in every if at == 1) == [0, 1, 2]


@pytest.mark.parametrize("stop", ["first_exhausted", "all_exhausted"])
@pytest.mark.parametrize("seed", [0, 7])
def test_interleave_draws_the_sets_as_datasets_does(stop: Any, seed: int) -> None:
    import datasets

    counts, weights = [300, 80, 50], (0.6, 0.3, 0.1)
    order = mix(config(*weights, mix="interleave", stopping_strategy=stop), counts, seed)
    theirs = datasets.interleave_datasets(
        [datasets.Dataset.from_dict({"set": [at] * count}) for at, count in enumerate(counts)],
        probabilities=list(weights), seed=seed, stopping_strategy=stop,
    )  # fmt: skip
    assert [at for at, _ in order] == theirs["set"][:]
    for at, weight in enumerate(weights):
        assert shares(order)[at] / len(order) == pytest.approx(weight, abs=0.08)


@example_settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.05, 1)), min_size=1, max_size=4),
    st.sampled_from(["concatenate", "interleave"]),
    st.sampled_from(["first_exhausted", "all_exhausted"]),
    st.integers(0, 2**32 - 1),
)
def test_mix_law(sets: list[tuple[int, float]], order_name: Any, stop: Any, seed: int) -> None:
    counts = [count for count, _ in sets]
    asked = config(*[weight for _, weight in sets], mix=order_name, stopping_strategy=stop)
    try:
        order = mix(asked, counts, seed)
    except InputError as error:
        assert stop == "first_exhausted" and "less than one row" in error.what
        return
    assert order == mix(asked, counts, seed)
    times = Counter(order)
    assert all(0 <= row < counts[at] for at, row in order)
    if stop == "all_exhausted":
        assert len(times) == sum(counts)
    else:
        assert set(times.values()) == {1}, "a row is repeated"
        assert any(sum(1 for at, _ in times if at == one) == count for one, count in enumerate(counts))


def test_slips_are_sentences() -> None:
    with pytest.raises(ValidationError, match="1 of 2 sets have a weight; give one to each, or to none"):
        config(1, None)
    with pytest.raises(InputError, match=r"set1\.jsonl: with these weights, all rows are used only after 1,000,0"):
        mix(config(1, 0.00001, stopping_strategy="all_exhausted"), [10, 10], 1)
    with pytest.raises(InputError, match=r"set1\.jsonl: the share of this dataset in the mix is less than one row"):
        mix(config(1, 0.001), [10, 10], 1)
    with pytest.raises(InputError, match=r"set0\.jsonl: no rows of this dataset are left to mix"):
        mix(config(1, 1), [0, 10], 1)


def test_a_limit_on_rows_is_an_upper_one() -> None:
    assert choose_rows(6, 7, random.Random(1)) == choose_rows(6, 6, random.Random(1)) == [0, 1, 2, 3, 4, 5]
    assert choose_rows(0, 7, random.Random(1)) == []
    assert len(set(choose_rows(6, 5, random.Random(1)))) == 5


def test_choose() -> None:
    assert choose(3, 3, random.Random(1)) == [0, 1, 2]
    chosen = choose(5, 12, random.Random(1))
    assert chosen[:10] == [0, 1, 2, 3, 4] * 2 and len(set(chosen[10:])) == 2


@pytest.fixture
def prepare(tokenizer: Any, settings: Settings, write: Write) -> Callable[..., Prepared]:
    """prepare({"weight": 1}, {"rows": 5}, mix=...): two sets of 40 and 10 rows."""

    def run(big: dict[str, Any], small: dict[str, Any], seed: int = 42, **values: Any) -> Prepared:
        paths = [
            write(f"{name}.jsonl", [chat(f"{name} question {i}?", f"{name} answer {i}") for i in range(count)])
            for name, count in (("big", 40), ("small", 10))
        ]
        train = [DataSource(path=str(path), **more) for path, more in zip(paths, (big, small), strict=True)]
        return prepare_data(DataConfig(train=train, **values), MethodConfig(), tokenizer, settings, seed=seed)

    return run


def used(rows: list[Any]) -> list[tuple[str, int]]:
    return [(one.path, one.row) for one in rows]


def test_report_counts_each_set(prepare: Callable[..., Prepared]) -> None:
    done = prepare({"weight": 1}, {"weight": 1}, validation=0, stopping_strategy="all_exhausted")
    big, small = done.report.sources
    assert (big.rows, big.chosen, big.kept, big.unused, big.repeated) == (40, 40, 40, 0, 0)
    assert (small.rows, small.chosen, small.kept, small.unused, small.repeated) == (10, 10, 10, 0, 30)
    assert Counter(path for path, _ in used(done.train)) == {"big.jsonl": 40, "small.jsonl": 40}
    assert done.report.tokens == sum(one.tokens for one in done.train)
    assert small.supervised_tokens == sum(one.supervised for one in done.train if one.path == "small.jsonl")
    assert done.report.duplicates_train == 0, "a repeat of the mix is not a double in the file"
    texts = [finding.text for finding in done.report.findings]
    assert any(text.startswith("examples are rows repeated") and text.endswith("small.jsonl 30") for text in texts)

    less = prepare({"weight": 1}, {"weight": 1}, validation=0)
    assert less.report.sources[0].unused == 30 and less.report.sources[0].kept == 10
    assert any(finding.count == 30 and "unused by the mix" in finding.text for finding in less.report.findings)


@pytest.mark.parametrize("order", ["concatenate", "interleave"])
def test_validation_rows_are_never_trained_on(prepare: Callable[..., Prepared], order: str) -> None:
    plain = prepare({}, {}, validation=0.2)
    mixed = prepare({"weight": 1}, {"weight": 2}, validation=0.2, mix=order, stopping_strategy="all_exhausted")
    assert used(mixed.validation) == used(plain.validation), "the mix changes the validation"
    assert len(mixed.validation) == 10
    assert not set(used(mixed.train)) & set(used(mixed.validation))
    assert set(used(mixed.train)) | set(used(mixed.validation)) == set(used(plain.train + plain.validation))
    assert len(mixed.train) > len(set(used(mixed.train))), "nothing is repeated"


def test_rows_are_a_seeded_choice(prepare: Callable[..., Prepared]) -> None:
    done, again, other = (prepare({"rows": 7}, {"rows": 10}, seed=seed, validation=0) for seed in (1, 1, 2))
    assert used(done.train) == used(again.train) != used(other.train)
    assert Counter(path for path, _ in used(done.train)) == {"big.jsonl": 7, "small.jsonl": 10}
    big = done.report.sources[0]
    assert (big.rows, big.chosen, big.kept) == (40, 7, 7)
    assert [row for path, row in used(done.train) if path == "small.jsonl"] == list(range(1, 11))


@pytest.mark.parametrize("more", [{}, {"streaming": "on", "truncation": "cut"}])
def test_more_rows_than_there_are_means_all_of_them(prepare: Callable[..., Prepared], more: dict[str, Any]) -> None:
    done = prepare({"rows": 40}, {"rows": 11_000}, validation=0, **more)
    assert (done.report.sources[1].rows, done.report.sources[1].chosen, done.report.train_rows) == (10, 10, 50)
    (found,) = [one for one in done.report.findings if "asked for" in one.text]
    assert found.text.startswith("11,000 rows were asked for, and the dataset has 10: all are used (")
    assert (found.level, found.count) == ("info", 10) and "small.jsonl" in found.text
