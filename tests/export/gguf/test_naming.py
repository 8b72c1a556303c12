"""The name inside a GGUF: the base's, and what llama.cpp reads into it only where the tokenizer says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from studio.export.gguf.naming import added_tokens, metadata, put_no_start, safe_name, strips_like_phi3

PHI3 = ("phi-3", "phi3")


def tokens(**strips: bool) -> dict[str, dict[str, Any]]:
    return {text: {"content": text, "rstrip": rstrip} for text, rstrip in strips.items()}


REAL = tokens(**{
    "<unk>": False, "<s>": False, "</s>": True, "<|endoftext|>": False, "<|user|>": True, "<|end|>": True,
})  # fmt: skip


@pytest.mark.parametrize("name", ["Phi-3-mini-4k-instruct", "phi3", "x", "Llama-3.2", "modern-bert-like"])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_rule_applies_exactly_where_the_tokenizer_has_it(name: str, wanted: bool) -> None:
    given = safe_name(name, wanted).lower()
    assert any(text in given for text in PHI3) is wanted
    assert wanted or "modern-bert" not in given
    assert len(given) - len(name) <= len(" (phi-3)")


def test_a_name_that_means_nothing_stays() -> None:
    assert safe_name("Qwen3-0.6B", False) == "Qwen3-0.6B"
    assert safe_name("Phi-3.5-mini", True) == "Phi-3.5-mini"


def test_phi3_is_told_by_its_tokens() -> None:
    assert strips_like_phi3(REAL)
    assert not strips_like_phi3({text: one | {"rstrip": False} for text, one in REAL.items()})
    assert not strips_like_phi3({text: one for text, one in REAL.items() if text != "</s>"}), (
        "llama.cpp would refuse it"
    )
    assert not strips_like_phi3(tokens(**{"<unk>": False, "<s>": False, "</s>": False, "<|endoftext|>": False,
                                          "<mask>": True, "<a>": False, "<b>": False, "<c>": False}))  # fmt: skip


@pytest.mark.parametrize("run", ["phi-3-mini", "x"])
@pytest.mark.parametrize("base", ["/home/phi3/models/qwen3", "org/qwen3", "qwen3"])
def test_neither_the_run_nor_the_place_of_the_base_is_in_the_name(run: str, base: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    said = metadata(run, base, tmp_path)
    assert said["general.name"] == "qwen3"
    assert run in said["general.description"]
    assert all(said[f"general.{key}"] is None for key in ("basename", "finetune", "version", "organization"))


def test_a_base_without_a_name_is_called_by_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    assert metadata("x", "", tmp_path)["general.name"] == "Qwen3ForCausalLM"


def test_added_tokens_of_either_file(tmp_path: Path) -> None:
    token = {"content": "<|end|>", "rstrip": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"7": token}}))
    assert added_tokens(tmp_path)["<|end|>"]["rstrip"]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [token | {"rstrip": False}]}))
    assert not added_tokens(tmp_path)["<|end|>"]["rstrip"]


@pytest.mark.parametrize(("said", "changed"), [(True, True), (False, False), (None, False)])
def test_a_file_asks_for_no_token_before_a_prompt(said: bool | None, changed: bool, tmp_path: Path) -> None:
    """One byte of it; a template that names the key is left alone."""
    file = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_chat_template("tokenizer.ggml.add_bos_token")
    if said is not None:
        writer.add_add_bos_token(said)
    writer.add_uint32("last", 7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    before = file.read_bytes()
    assert put_no_start(file) is changed
    after = file.read_bytes()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == int(changed)
    fields = gguf.GGUFReader(file).fields
    assert fields["last"].contents() == 7
    assert said is None or fields["tokenizer.ggml.add_bos_token"].contents() is False
