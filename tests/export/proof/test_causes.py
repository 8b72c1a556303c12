"""Each cause of differing tokens is found by experiment, with its shortest example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from studio.export.proof.causes import Cause, Trained, causes, shortest

TEXT = "<|user|>\nA rather long question about cafés and other things, asked in some words.<|end|>\n"
CONTROL = ["<|user|>", "<|end|>"]


def tokenizer(
    normalizer: Any = None, tokens: list[str] | None = None, strip: bool = False, words: str = ""
) -> Tokenizer:
    """Single bytes as tokens, added ones, and an optional normaliser."""
    vocabulary = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens([AddedToken(one, rstrip=strip, normalized=False) for one in tokens or CONTROL])
    return made


def found(text: str, trained: Tokenizer, other: Tokenizer, folder: Path) -> list[Cause]:
    trained.save(str(folder / "tokenizer.json"))
    whole = [token["content"] for token in json.loads(other.to_str())["added_tokens"]]

    def read(part: str) -> list[int]:
        return list(other.encode(part, add_special_tokens=False).ids)

    return causes(text, Trained(str(folder / "tokenizer.json")), read, whole)


def test_equal_tokens_have_no_cause(tmp_path: Path) -> None:
    assert found(TEXT, tokenizer(), tokenizer(), tmp_path) == []


@pytest.mark.parametrize(
    ("normalizer", "text", "example", "named"),
    [
        (normalizers.NFC(), "cafe\u0301", "'e\\u0301'", "NFC"),
        (normalizers.NFKC(), "ﬁne", "'\\ufb01'", "NFKC"),
        (normalizers.Lowercase(), "Hello", "'H'", "Lowercase"),
        (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "é", "'é'", "NFD"),
        (normalizers.Strip(), "  a question  ", "' '", "Strip"),
    ],
)
def test_a_normalizer_is_named(normalizer: Any, text: str, example: str, named: str, tmp_path: Path) -> None:
    (cause,) = found(f"say {text} please" if named != "Strip" else text, tokenizer(normalizer), tokenizer(), tmp_path)
    assert cause.kind == "normalization"
    assert named in cause.what
    assert example in cause.example


def test_a_literal_that_only_llama_cpp_takes_for_a_token(tmp_path: Path) -> None:
    (cause,) = found(f"{TEXT} </s> is a tag", tokenizer(), tokenizer(tokens=[*CONTROL, "</s>"]), tmp_path)
    assert (cause.kind, cause.example) == ("literal", "'</s>'")
    assert "</s>" in cause.fix


def test_a_control_token_that_falls_apart(tmp_path: Path) -> None:
    (cause,) = found(TEXT, tokenizer(tokens=["<|end|>", "<|user|>"]), tokenizer(tokens=["<|end|>"]), tmp_path)
    assert cause.kind == "split token"
    assert "<|user|>" in cause.example


def test_blanks_that_one_side_leaves_out(tmp_path: Path) -> None:
    causes = found(TEXT, tokenizer(strip=True), tokenizer(), tmp_path)
    assert {cause.kind for cause in causes} == {"blanks"}


def test_another_rule_for_cutting(tmp_path: Path) -> None:
    other = tokenizer()
    other.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("q", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)
    ])  # fmt: skip
    (cause,) = found("a question", tokenizer(), other, tmp_path)
    assert (cause.kind, cause.example) == ("splitting", "'q'")


def test_letters_with_marks_are_named_once(tmp_path: Path) -> None:
    other = tokenizer()
    marks = pre_tokenizers.Split(Regex(r"\p{M}"), "removed")
    other.pre_tokenizer = pre_tokenizers.Sequence([marks, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    (cause,) = found(f"{TEXT} हिन्दी, ภาษาไทย", tokenizer(), other, tmp_path)
    assert cause.kind == "marks"


def test_two_causes_in_one_text_are_both_named(tmp_path: Path) -> None:
    text = "Is </s> in a cafe\u0301?"
    kinds = [c.kind for c in found(text, tokenizer(normalizers.NFC()), tokenizer(tokens=[*CONTROL, "</s>"]), tmp_path)]
    assert sorted(kinds) == ["literal", "normalization"]


def test_a_blank_that_one_side_puts_at_the_beginning_hides_nothing(tmp_path: Path) -> None:
    """Without the token at the beginning every text would differ, and the shortest would be any letter."""
    trained = tokenizer(normalizers.NFC())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    other = tokenizer()

    def read(part: str) -> list[int]:
        blank = [] if part.startswith("<|user|>") else [7]
        return blank + list(other.encode(part, add_special_tokens=False).ids)

    trained.save(str(tmp_path / "tokenizer.json"))
    (cause,) = causes(f"{TEXT} cafe\u0301", Trained(str(tmp_path / "tokenizer.json")), read, CONTROL)
    assert cause.kind == "normalization"
    assert "'e\\u0301'" in cause.example


@pytest.mark.parametrize("differs", [lambda text: "x" in text, lambda text: text.count("a") > 2])
def test_what_is_left_still_differs_and_nothing_can_go(differs: Callable[[str], bool]) -> None:
    left = shortest("banana mixed with x and others", differs)
    assert differs(left)
    assert not any(differs(left[:i] + left[i + 1 :]) for i in range(len(left)))
