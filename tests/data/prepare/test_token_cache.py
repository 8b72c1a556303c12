"""Tokens kept on disk: a second start does not tokenize, and whatever could change a token makes new ones."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig
from studio.data.masks.masker import Masker
from studio.data.prepare import pipeline as prepare
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.prepare.tokencache import TokenCache
from studio.data.sources.held import HeldExamples
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.templates import CHATML, LLAMA3, with_template

ROWS = {
    "sft": [{"prompt": f"What is {i}?", "completion": f"It is {i}. 🙂"} for i in range(9)],
    "dpo": [{"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(9)],
    "kto": [{"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(9)],
    "pretrain": [{"text": f"The number {i}."} for i in range(9)],
}
Tokenized = list[int]


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> Tokenized:
    """How many rows were made into tokens, a number for each call."""
    calls: Tokenized = []
    encode = prepare.encode

    def counted(kind: Any, examples: Any, masker: Masker) -> Any:
        calls.append(len(examples))
        return encode(kind, examples, masker)

    monkeypatch.setattr(prepare, "encode", counted)
    return calls


def prepared(file: Path, tokenizer: Any, settings: Settings, method: str = "sft", **options: Any) -> Prepared:
    data = DataConfig(train=[{"path": str(file)}], validation=0, **options)
    return prepare_data(data, MethodConfig(name=method), tokenizer, settings)


@pytest.mark.parametrize("method", ROWS)
def test_a_second_start_reads_the_same_tokens(
    method: str, tokenizer: Any, settings: Settings, write: Callable[..., Path], tokenized: Tokenized
) -> None:
    file = write("rows.jsonl", ROWS[method])
    first = prepared(file, tokenizer, settings, method)
    assert sum(tokenized) == 9 and not first.report.sources[0].cached
    second = prepared(file, tokenizer, settings, method)
    assert sum(tokenized) == 9 and second.report.sources[0].cached
    assert second.train == first.train
    second.report.sources[0].cached = False
    assert second.report == first.report


def test_rows_say_where_they_are_now(
    tokenizer: Any, settings: Settings, write: Callable[..., Path], tokenized: Tokenized
) -> None:
    """The same rows in another file, behind an empty line."""
    prepared(write("one.jsonl", ROWS["sft"]), tokenizer, settings)
    moved = write("two.jsonl", "\n" + "".join(json.dumps(row) + "\n" for row in ROWS["sft"]))
    again = prepared(moved, tokenizer, settings)
    assert sum(tokenized) == 9
    assert [(unit.path, unit.row) for unit in again.train[:2]] == [("two.jsonl", 2), ("two.jsonl", 3)]


def test_whatever_could_change_a_token_makes_new_ones(
    tokenizer: Any, settings: Settings, write: Callable[..., Path], tokenized: Tokenized
) -> None:
    conversation = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2}
    file = write("rows.jsonl", [conversation])
    plain, other = with_template(tokenizer, CHATML), with_template(tokenizer, LLAMA3)
    widened = with_template(tokenizer, CHATML)
    widened.add_tokens(["b"])
    makers = [(plain, {}), (plain, {"system": "Be brief."}), (other, {}), (widened, {})]
    for at, (maker, options) in enumerate(makers, 1):
        prepared(file, maker, settings, **options)
        assert len(tokenized) == at
    prepared(write("rows.jsonl", [conversation, conversation]), plain, settings)
    prepare_data(
        DataConfig(train=[{"path": str(file)}], validation=0),
        MethodConfig(name="sft", train_on="last"),
        plain,
        settings,
    )
    assert len(tokenized) == 6
    prepared(file, plain, settings)
    assert len(tokenized) == 6


def test_a_template_that_writes_the_date_is_asked_again_tomorrow(tokenizer: Any, settings: Settings) -> None:
    dated = with_template(tokenizer, "{{ strftime_now('%H:%M:%S.%f') }}" + CHATML)
    assert Masker(dated).fingerprint() != Masker(dated).fingerprint()
    plain = with_template(tokenizer, CHATML)
    assert Masker(plain).fingerprint() == Masker(plain).fingerprint()


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"x" * 99])
def test_a_damaged_entry_is_made_again(
    damage: Callable[[bytes], bytes], tokenizer: Any, settings: Settings, write: Callable[..., Path],
    tokenized: Tokenized, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = write("rows.jsonl", ROWS["sft"])
    first = prepared(file, tokenizer, settings)
    (entry,) = settings.tokens.glob("*.arrow")
    entry.write_bytes(damage(entry.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert prepared(file, tokenizer, settings).train == first.train
    assert "cannot be read and is rebuilt" in caplog.text and len(tokenized) == 2
    assert prepared(file, tokenizer, settings).report.sources[0].cached


def test_no_room_is_no_reason_to_stop(
    tokenizer: Any, settings: Settings, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    settings.tokens.parent.mkdir(parents=True)
    settings.tokens.write_text("a file where the folder should be")
    assert len(prepared(write("rows.jsonl", ROWS["sft"]), tokenizer, settings).train) == 9
    assert "could not be cached" in caplog.text


def test_the_least_used_make_room(tokenizer: Any, settings: Settings, write: Callable[..., Path]) -> None:
    from studio.data.formats.answers import Example
    from studio.data.prepare.units import encode

    masker = Masker(with_template(tokenizer, CHATML))
    example = Example(1, "x", "text", text="a " * 2000)
    sets = [HeldExamples([replace(example, text=f"{i} {example.text}")]) for i in range(3)]
    cache = TokenCache(settings.tokens, masker, "answers")
    for i, rows in enumerate(sets):
        with cache.keeping(rows) as keep:
            keep(encode("answers", list(rows), masker))
        for entry in settings.tokens.glob("*.arrow"):
            os.utime(entry, (i, i)) if entry.stat().st_mtime > 1e6 else None
    sizes = [entry.stat().st_size for entry in settings.tokens.glob("*.arrow")]
    assert len(sizes) == 3 and cache.read(sets[0]) is not None  # reading marks it as used
    small = TokenCache(settings.tokens, masker, "answers", limit_bytes=max(sizes) * 2)
    extra = HeldExamples([replace(example, text="new")])
    with small.keeping(extra) as keep:
        keep(encode("answers", list(extra), masker))
    assert [cache.read(rows) is not None for rows in (*sets, extra)] == [True, False, False, True]
