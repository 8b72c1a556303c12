"""What is read of a tokenizer.json without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.data.worker.client import DataWorker
from studio.errors import InputError, StudioError
from studio.models.inspect import vocabulary
from studio.models.inspect.vocabulary import ids_in, require_linear_splits
from studio.settings import Settings

SLOW = r"([a-z]+)+!"


def write(folder: Path, **parts: Any) -> Path:
    words = {letter: number for number, letter in enumerate("abcdefgh!? ")}
    added = [{"id": 11, "content": "<end>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False}]  # fmt: skip
    model = {"type": "BPE", "vocab": words, "merges": [], "unk_token": None}
    value = {"version": "1.0", "added_tokens": added, "model": model, "normalizer": None, "pre_tokenizer": None,
             "decoder": None, "post_processor": None, "truncation": None, "padding": None}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({**value, **parts}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"})
    )
    return folder / "tokenizer.json"


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("large", [False, True], ids=["here", "in a process of its own"])
def test_ids_and_the_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr(vocabulary, "_HERE", vocabulary.Limits(bytes=10, nodes=10))
    file = write(tmp_path)
    assert ids_in(file, "c") == (11, 2) and ids_in(file, "<end>") == (11, 11) and ids_in(file, "z") == (11, None)
    write(tmp_path, added_tokens=[], normalizer={"type": "NFC"})
    assert ids_in(file, "c") == (10, 2), "the file has changed"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "{}", "\udcff", '{"model": {"vocab": [[]]}}', '{"model": {"vocab": {"a": "b"}}}']
)
def test_what_is_none_has_no_ids(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(text.encode(errors="surrogateescape"))
    assert ids_in(tmp_path / "tokenizer.json", "a") == (None, None)
    assert ids_in(tmp_path / "nothing.json", "a") == (None, None)


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": split(SLOW)},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, split(SLOW)]}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": SLOW}, "content": ""}},
        {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"Regex": SLOW}, "content": ""}]}},
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(tmp_path: Path, settings: Settings, parts: dict[str, Any]) -> None:
    file = write(tmp_path / "model", **parts)
    with pytest.raises(InputError, match="splits text by"):
        require_linear_splits(file)


def test_the_data_worker_loads_no_such_tokenizer(tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "good", pre_tokenizer=split(r"[^\s]+|\s+(?!\S)|\s+"))
    write(tmp_path / "bad", pre_tokenizer=split(SLOW))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a" * 60 + "?"}) + "\n")
    worker = DataWorker(settings)
    try:
        asked = {"data": {"train": [{"path": str(rows)}]}, "method": {"name": "pretrain"}, "seed": 1}
        assert worker.call("lengths", model={"path": str(tmp_path / "good")}, **asked)["train"]
        with pytest.raises(StudioError, match="splits text by"):
            worker.call("lengths", model={"path": str(tmp_path / "bad")}, **asked)
    finally:
        worker.close()
