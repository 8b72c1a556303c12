"""The rows of an importance matrix are the run's training rows, as training saw them, and always the same few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.export.imatrix import sample
from studio.export.imatrix.sample import sample_rows, training_rows
from studio.settings import Settings


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return load_tokenizer(model_path)


def of(path: Path | str, method: str = "sft", **data: Any) -> dict[str, Any]:
    return {"data": {"train": [{"path": str(path)}], **data}, "method": {"name": method}}


def test_demo_rows_are_whole_rendered_rows_of_the_training_file(session_settings: Settings, tokenizer: Any) -> None:
    asked = training_rows(of("demo/train.jsonl", validation="demo/validation.jsonl"), session_settings)
    assert asked.names == ["demo/train.jsonl"]
    rows = sample_rows(asked, tokenizer, session_settings)
    assert rows == sample_rows(asked, tokenizer, session_settings)
    assert 0 < len(rows) <= sample.ROWS and sum(map(len, rows)) <= sample.TOKENS
    text = tokenizer.decode(rows[0])
    assert text.startswith("<|im_start|>") and "<|im_start|>assistant" in text and text.rstrip().endswith("<|im_end|>")


def test_rows_and_tokens_are_bounded_and_spread_over_sources(
    session_settings: Settings, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("a", 40), ("b", 3)):
        lines = [json.dumps({"text": f"{name} {number} " + "word " * 30}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    config = of(tmp_path / "a.jsonl")
    config["data"]["train"].append({"path": str(tmp_path / "b.jsonl")})
    asked = training_rows(config, session_settings)
    assert asked.names == ["a.jsonl", "b.jsonl"], "no folder of this machine"
    monkeypatch.setattr(sample, "ROWS", 10)
    rows = [tokenizer.decode(ids) for ids in sample_rows(asked, tokenizer, session_settings)]
    assert len(rows) == 8 and sum(row.startswith("b ") for row in rows) == 3
    assert {int(row.split()[1]) for row in rows if row.startswith("a ")} == {0, 8, 16, 24, 32}
    monkeypatch.setattr(sample, "TOKENS", 50)
    monkeypatch.setattr(sample, "ROW_TOKENS", 20)
    assert [len(ids) for ids in sample_rows(asked, tokenizer, session_settings)] == [20, 20, 10]


def test_pairs_give_the_better_answer_and_prompts_themselves(session_settings: Settings, tokenizer: Any) -> None:
    pairs = training_rows(of("demo/pairs_train.jsonl", "dpo"), session_settings)
    text = tokenizer.decode(sample_rows(pairs, tokenizer, session_settings)[0])
    assert "<|im_start|>assistant" in text
    prompts = training_rows(of("demo/sums_train.jsonl", "grpo"), session_settings)
    for ids in sample_rows(prompts, tokenizer, session_settings)[:5]:
        assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")


def test_plain_text_is_read_as_training_reads_it(session_settings: Settings, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": "One plus one is", "completion": " two."}) + "\n")
    (chat,) = sample_rows(training_rows(of(tmp_path / "one.jsonl"), session_settings), tokenizer, session_settings)
    assert "<|im_start|>user\nOne plus one is<|im_end|>" in tokenizer.decode(chat)
    markup = training_rows(of(tmp_path / "one.jsonl", control_tokens="keep"), session_settings)
    (raw,) = sample_rows(markup, tokenizer, session_settings)
    assert "<|im_start|>" not in tokenizer.decode(raw)
    assert tokenizer.decode(raw).startswith("One plus one is two.")


def test_rows_that_are_gone_are_said_with_what_to_do(session_settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        training_rows(of("/gone/rows.jsonl"), session_settings)
    assert "training rows" in caught.value.what and "/gone/rows.jsonl" in caught.value.sentence
    assert "imatrix: off" in caught.value.fix
