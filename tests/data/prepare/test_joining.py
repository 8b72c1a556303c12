"""Documents joined for pretraining: no token lost, none doubled, every sequence full but the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.config.data import DataConfig
from studio.data.prepare.joining import join_documents, joined_lengths
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.prepare.units import Encoded
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings

LIMIT = 16


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(2, 20))
def test_no_token_is_lost_or_doubled(lengths: list[int], limit: int) -> None:
    numbers = iter(range(10_000))
    documents = []
    for row, length in enumerate(lengths, 1):
        ids = [next(numbers) for _ in range(length)]
        documents.append(Encoded(ids, list(ids), row, "x"))
    joined = join_documents(documents, limit)
    total = sum(lengths)
    ids = [token for one in joined for token in one.input_ids]
    assert ids == list(range(total - (total % limit == 1)))
    assert [one.length for one in joined] == joined_lengths(total, limit)
    assert all(one.labels == one.input_ids for one in joined)
    first = [next(row for row, one in enumerate(documents, 1) if joined[k].input_ids[0] in one.input_ids)
             for k in range(len(joined))]  # fmt: skip
    assert [one.row for one in joined] == first
    assert [one.length for one in documents] == lengths, "the documents are as they were"


@pytest.fixture
def prepared(tokenizer: Any, settings: Settings, write: Callable[..., Path]) -> Callable[..., Prepared]:
    texts = ["A short text.", "A text that is a good deal longer than the limit. " * 6, "Another one.", "The last."]

    def make(documents: str, name: str = "pretrain", **options: Any) -> Prepared:
        file = write("texts.jsonl", [{"text": text} for text in texts])
        data = DataConfig(train=[{"path": str(file)}], max_length=LIMIT, **{"validation": 0, **options})
        return prepare_data(data, MethodConfig(name=name, documents=documents), tokenizer, settings)

    return make


def test_a_long_text_goes_on_in_the_next_example(prepared: Callable[..., Prepared], tokenizer: Any) -> None:
    done = prepared("join")
    assert {one.length for one in done.train[:-1]} == {LIMIT}
    text = tokenizer.decode([token for one in done.train for token in one.input_ids])
    assert text.startswith("A short text.<|im_end|>A text that") and text.endswith(
        "Another one.<|im_end|>The last.<|im_end|>"
    )
    assert text.count("<|im_end|>") == 4
    report = done.report
    assert report.train_rows == len(done.train) and report.tokens == sum(one.length for one in done.train)
    assert (report.cut, report.sources[0].dropped) == (0, 0)


def test_validation_is_joined_by_itself(prepared: Callable[..., Prepared], tokenizer: Any) -> None:
    done = prepared("join", validation=0.5)
    both = [
        tokenizer.decode([token for one in part for token in one.input_ids]) for part in (done.train, done.validation)
    ]
    assert sorted(text.count("<|im_end|>") for text in both) == [2, 2]


def test_without_it_a_long_text_is_refused_and_the_way_out_named(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(InputError, match=r"method\.documents to join"):
        prepared("separate")
    with pytest.raises(InputError) as caught:
        prepared("join", name="sft")
    assert "method.documents" not in caught.value.sentence


def test_the_profile_counts_what_a_run_would_have(
    tokenizer: Any, settings: Settings, model_path: Path, write: Callable[..., Path], prepared: Callable[..., Prepared]
) -> None:
    done = prepared("join")
    data = {"train": [{"path": str(write("texts.jsonl", Path(done.report.sources[0].file).read_bytes()))}],
            "validation": 0, "max_length": LIMIT}  # fmt: skip
    args = {
        "data": data,
        "method": {"name": "pretrain", "documents": "join"},
        "model": str(model_path),
        "micro_batch": 4,
    }
    profile = WholeOperations(settings).run("profile", args, lambda *told: None)
    assert profile["train"] == len(done.train) and profile["tokens"]["kept"] == done.report.tokens
    assert (profile["lengths"]["refused"], profile["lengths"]["cut"], profile["lengths"]["dropped"]) == (0, 0, 0)
    assert "too_long" not in {one["check"] for one in profile["findings"]}
    batch = WholeOperations(settings).run("batch", args, lambda *told: None)
    assert batch["shapes"]["input_ids"] == [4, LIMIT]
