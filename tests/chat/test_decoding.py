"""Sampling and text making, without a model's weights."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from studio.chat.decoding import REPLACEMENT, ByteText, Sampler, StopFilter, WindowText
from studio.errors import StudioError

TEXT = "Grüße 😀 你好，世界 👨‍👩‍👧‍👦 नमस्ते\n\n  two spaces 🇫🇷 e\u0301"


def test_temperature_zero_takes_the_first_largest() -> None:
    assert Sampler(temperature=0)(np.array([1.0, 3.0, 3.0], dtype=np.float32)) == 1


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    sampler = Sampler(seed=3)
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.2]).max() < 0.03  # four standard deviations of 4000 draws


@pytest.mark.parametrize(("top_p", "allowed"), [(0.4, {0}), (0.5, {0}), (0.79, {0, 1}), (0.95, {0, 1, 2})])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, allowed: set[int]) -> None:
    logits = np.log(np.array([0.52, 0.28, 0.17, 0.03], dtype=np.float32))
    sampler = Sampler(top_p=top_p, seed=0)
    assert {sampler(logits) for _ in range(500)} == allowed


def test_same_seed_same_draws_and_negative_seeds_are_seeds() -> None:
    logits = np.zeros(1000, dtype=np.float32)
    draws = [[Sampler(seed=seed, top_p=p)(logits) for p in (1.0, 0.9)] for seed in (-5, -5, 6)]
    assert draws[0] == draws[1] != draws[2]


def test_extreme_logits_do_not_overflow() -> None:
    logits = np.array([-1e30, 1e30, -np.inf], dtype=np.float32)
    assert Sampler(temperature=0.01, top_p=0.5, seed=0)(logits) == 1


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("logits", [[np.nan, 1, 2], [np.inf, 1, 2], [-np.inf, -np.inf, -np.inf]], ids=str)
def test_numbers_that_overflowed_choose_nothing(logits: list[float], temperature: float) -> None:
    with pytest.raises(StudioError, match="its numbers overflowed"):
        Sampler(temperature)(np.array(logits, dtype=np.float32))


def test_hugging_face_tokens_become_whole_characters(model_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    maker = WindowText(lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    pieces = [maker.push(token) for token in tokens] + [maker.finish()]
    assert len(tokens) > len(TEXT.split())  # characters are spread over tokens here, else this shows nothing
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert "".join(pieces) == TEXT


def test_a_decoder_that_drops_the_first_space_keeps_the_others() -> None:
    words = ["▁one", "▁two", "<s>", "▁three"]

    def decode(ids: object) -> str:  # like SentencePiece: special tokens skipped, first space dropped
        return "".join(words[i] for i in ids if words[i] != "<s>").replace("▁", " ").removeprefix(" ")  # type: ignore[attr-defined]

    maker = WindowText(decode)
    assert "".join([*(maker.push(i) for i in range(4)), maker.finish()]) == "one two three"


def test_garbage_bytes_are_shown_in_the_end_not_held_for_ever() -> None:
    maker = WindowText(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [maker.push(0xFF) for _ in range(20)]
    assert any(pieces)
    assert "".join(pieces) + maker.finish() == REPLACEMENT * 20


def test_bytes_become_whole_characters() -> None:
    maker = ByteText(lambda token: bytes([token]))
    pieces = [maker.push(byte) for byte in TEXT.encode()] + [maker.finish()]
    assert REPLACEMENT not in "".join(pieces)
    assert "".join(pieces) == TEXT
    cut = ByteText(lambda token: bytes([token]))
    assert cut.push(0xF0) == "" and cut.finish() == REPLACEMENT


def test_stop_filter_equals_a_cut_of_the_whole_text_however_it_is_split() -> None:
    draw = random.Random(0)
    met = 0
    for _ in range(2000):
        text = "".join(draw.choices("ab", k=draw.randint(0, 12)))
        stops = ["".join(draw.choices("ab", k=draw.randint(1, 4))) for _ in range(draw.randint(1, 3))]
        places = [text.find(stop) for stop in stops if stop in text]
        sent, rest = "", text
        stop_filter = StopFilter(stops)
        while rest and not stop_filter.met:
            size = draw.randint(1, 3)
            sent += stop_filter.push(rest[:size])
            rest = rest[size:]
        if not stop_filter.met:
            sent += stop_filter.finish()
        assert stop_filter.met == bool(places)
        met += stop_filter.met
        # Of two stops the one that is complete first counts; both ends are what a reader could have seen.
        assert not places or (text.startswith(sent) and not any(stop in sent for stop in stops))
        assert places or sent == text
    assert 500 < met < 1900
