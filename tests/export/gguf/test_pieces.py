"""tokenizer.model made out of tokenizer.json, and whether a blank is put before a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from studio.export.gguf.pieces import write_pieces
from studio.export.gguf.tokens import choose, needs_work
from studio.export.proof.material import ids_of
from tests.export.phi3 import write_tokenizer
from tests.install_tokenizers import folder_of


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "phi3"}))
    return folder


def test_the_made_file_cuts_as_the_tokenizer_does(base: Path) -> None:
    (base / "tokenizer.model").unlink()
    assert needs_work(base)
    assert write_pieces(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    made = SentencePieceProcessor(model_file=str(base / "tokenizer.model"))
    for text in ("the thinner otter", "a  the\tä €", "another tether 12,345"):
        assert made.encode(text) == ids_of(tokenizer, text)
    assert made.is_control(1)
    assert made.is_unknown(0)
    assert made.is_byte(made.piece_to_id("<0x09>"))


def test_a_file_that_is_there_stays(base: Path) -> None:
    before = (base / "tokenizer.model").read_bytes()
    assert not write_pieces(base)
    assert (base / "tokenizer.model").read_bytes() == before


def test_a_tokenizer_of_another_kind_gets_none(tmp_path: Path) -> None:
    folder = folder_of("qwen3")
    assert not needs_work(folder)
    assert not write_pieces(folder)


@pytest.mark.parametrize("first_only", [True, False])
def test_the_converter_is_told_when_no_blank_follows_a_token(base: Path, tmp_path: Path, first_only: bool) -> None:
    state = json.loads((base / "tokenizer.json").read_text())
    if first_only:  # as Mistral's newer tokenizers have it
        state["normalizer"] = None
        state["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    (base / "tokenizer.json").write_text(json.dumps(state))
    choose({"run": str(base), "base": str(base), "folder": str(tmp_path / "out")}, lambda done, total: None)
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config.get("add_prefix_space", True) is not first_only
    assert "add_prefix_space" not in json.loads((base / "tokenizer_config.json").read_text())
