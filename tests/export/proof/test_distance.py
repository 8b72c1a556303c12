"""Where two models are farthest apart is found while they are compared, and told in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Metaspace

from studio.export.proof.distance import CONTEXT_TOKENS, SHOWN_PLACES, compare_texts, in_words

WORDS = ["the", "ferry", "leaves", "at", "seven", "eight"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One that puts a blank before each word but drops the one that a text begins with."""
    made = Tokenizer(models.WordLevel({f"▁{word}": place for place, word in enumerate(WORDS)}, unk_token="▁the"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), Metaspace()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


def sure(of: list[int], share: float = 0.9) -> npt.NDArray[np.float32]:
    """Logits that give one token of each position so much."""
    table = np.full((len(of), len(WORDS)), np.log((1 - share) / (len(WORDS) - 1)), np.float32)
    table[np.arange(len(of)), of] = np.log(share)
    return table


def text(ids: list[int], first: int) -> dict[str, Any]:
    return {"ids": ids, "first": first, "supervised": [False] * (len(ids) - first - 1) + [True]}


def test_the_worst_positions_come_first_and_in_words(tokenizer: Path) -> None:
    texts = [text([0, 1, 2, 3], 1), text([0, 1, 2], 2)]
    trained = sure([2, 3, 4, 3])
    others = {0: sure([2, 3, 5]), 1: sure([3], 0.8)}
    logits = iter(others.values())
    found = compare_texts(texts, trained, lambda one: next(logits), lambda done, total: None)
    assert found["overall"]["top1"] == 0.75
    first, second = in_words(found["places"], tokenizer)
    assert (first["text"], first["position"], first["answer"]) == (1, 4, True)
    assert first["context"] == "the ferry leaves at"
    assert first["trained"]["token"] == " seven" and first["exported"]["token"] == " eight"
    assert first["trained"]["probability"] == pytest.approx(0.9) == first["exported"]["probability"]
    assert first["trained"]["other"] == pytest.approx(0.02) == first["exported"]["other"]
    assert first["kl"] == pytest.approx(0.88 * np.log(0.9 / 0.02), rel=1e-4) and first["kl"] > second["kl"]
    assert (second["text"], second["trained"]["token"], second["exported"]["token"]) == (2, " at", " at")


def test_of_many_a_few_are_kept_and_long_contexts_are_cut(tokenizer: Path) -> None:
    ids = [0, *([1] * 99)]
    shares = np.linspace(0.2, 0.89, 100)
    other = np.concatenate([sure([2], share) for share in shares])
    found = compare_texts([text(ids, 0)], sure([2] * 100), lambda one: other, lambda done, total: None)
    told = in_words(found["places"], tokenizer)
    assert [one["position"] for one in told] == list(range(1, SHOWN_PLACES + 1)), "the first are the farthest here"
    far = compare_texts([text(ids, 0)], sure([2] * 100), lambda one: other[::-1], lambda done, total: None)["places"]
    assert in_words(far, tokenizer)[0]["context"] == "… " + " ".join(["ferry"] * CONTEXT_TOKENS)


def test_nothing_is_shown_where_nothing_differs_and_a_broken_number_is_told(tokenizer: Path) -> None:
    trained = sure([2, 3])
    same = compare_texts([text([0, 1], 0)], trained, lambda one: trained + 2, lambda done, total: None)
    assert in_words(same["places"], tokenizer) == []
    broken = sure([2, 3])
    broken[1] = np.nan
    (worst,) = in_words(
        compare_texts([text([0, 1], 0)], trained, lambda one: broken, lambda done, total: None)["places"], tokenizer
    )
    assert worst["position"] == 2 and worst["kl"] is None and worst["exported"]["probability"] is None
