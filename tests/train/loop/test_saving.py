"""The run keeps its base's tokenizer files: byte for byte, or but for what it set differently."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.data.masks.templates import with_template
from studio.models.inspect.tokenizerfiles import same_tokens, tokenizer_files
from studio.train.loop.saving import save_tokenizer
from tests.install_tokenizers import folder_of

# Model types under which transformers reads the same files by another class than without a config.json.
BASES = {"qwen2_5": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text", "deepseek_v3": "deepseek_v3", "llama3": "llama"}


def as_base(family: str, model_type: str, folder: Path, **settings: Any) -> Path:
    """A base model's folder with a real tokenizer, and no weights."""
    shutil.copytree(folder_of(family), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 300_000}))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {str(name): hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in tokenizer_files(folder)}


@pytest.mark.long
@pytest.mark.parametrize("family", BASES)
def test_files_are_the_bases_to_the_byte(family: str, tmp_path: Path) -> None:
    base = as_base(family, BASES[family], tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    folder = tmp_path / "run"
    folder.mkdir()
    tokenizer.save_pretrained(folder)  # as transformers' trainer does before
    save_tokenizer(tokenizer, base, folder, trust_remote_code=False)
    assert digests(folder) == digests(base)
    assert same_tokens(AutoTokenizer.from_pretrained(folder), tokenizer)


@pytest.mark.long
def test_a_class_that_hangs_on_the_model_type_is_read_as_in_training(tmp_path: Path) -> None:
    """As Phi-4: its class in tokenizer_config.json has another pre-tokenizer than its tokenizer.json."""
    base = as_base("llama3", "phi3", tmp_path / "base", tokenizer_class="GPT2Tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(base)
    folder = tmp_path / "run"
    folder.mkdir()
    save_tokenizer(tokenizer, base, folder, trust_remote_code=False)
    assert digests(folder) == digests(base)
    read = AutoTokenizer.from_pretrained(folder)
    assert read("In 1234567 days")["input_ids"] == tokenizer("In 1234567 days")["input_ids"]


def test_a_template_of_the_run_is_all_that_changes(tmp_path: Path) -> None:
    base = as_base("qwen3", "qwen3", tmp_path / "base")
    tokenizer = with_template(AutoTokenizer.from_pretrained(base), "chatml", None)
    folder = tmp_path / "run"
    folder.mkdir()
    save_tokenizer(tokenizer, base, folder, trust_remote_code=False)
    before, after = digests(base), digests(folder)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"tokenizer_config.json"}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config == json.loads((base / "tokenizer_config.json").read_text()) | {
        "chat_template": config["chat_template"]
    }
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template


@pytest.mark.long
def test_a_token_for_padding_is_written_into_the_bases_settings(tmp_path: Path) -> None:
    base = as_base("llama3", "llama", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    folder = tmp_path / "run"
    folder.mkdir()
    save_tokenizer(tokenizer, base, folder, trust_remote_code=False)
    assert AutoTokenizer.from_pretrained(folder).pad_token == tokenizer.eos_token
    assert digests(folder)["tokenizer.json"] == digests(base)["tokenizer.json"]


@pytest.mark.long
def test_added_tokens_are_saved(tmp_path: Path) -> None:
    base = as_base("qwen3", "qwen3", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<new>"])
    folder = tmp_path / "run"
    folder.mkdir()
    save_tokenizer(tokenizer, base, folder, trust_remote_code=False)
    assert AutoTokenizer.from_pretrained(folder)("a<new>b")["input_ids"] == tokenizer("a<new>b")["input_ids"]
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
