"""Whose tokenizer files an export takes: of runs saved before the base's files were kept, and of those after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from studio.export.gguf.tokens import choose, has_own_files
from studio.models.inspect.tokenizerfiles import same_files
from tests.install_tokenizers import folder_of


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model's folder with Gemma 3's real tokenizer, and a vocabulary that transformers 5 does not write."""
    folder = shutil.copytree(folder_of("gemma3"), tmp_path / "base")
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    return folder


def old_run(base: Path, folder: Path, token: str = "", template: str = "") -> Path:
    """The tokenizer as runs were saved before."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    if token:
        tokenizer.add_tokens([token])
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def chosen(run: Path, base: Path, folder: Path) -> str:
    request = {"run": str(run), "base": str(base), "folder": str(folder)}
    return str(choose(request, lambda done, total: None)["from"])


@pytest.mark.long
def test_an_old_run_with_the_same_ids_gets_the_bases_files(base: Path, tmp_path: Path) -> None:
    run = old_run(base, tmp_path / "run")
    assert not has_own_files(run, base)
    assert chosen(run, base, tmp_path / "out") == "base"
    out, told = tmp_path / "out", {"add_prefix_space": False}  # for the converter: no blank before a text
    config = json.loads((base / "tokenizer_config.json").read_text())
    assert json.loads((out / "tokenizer_config.json").read_text()) == config | told
    shutil.copyfile(base / "tokenizer_config.json", out / "tokenizer_config.json")
    assert same_files(out, base)


@pytest.mark.long
def test_an_old_run_keeps_its_template(base: Path, tmp_path: Path) -> None:
    run = old_run(base, tmp_path / "run", template="{{ messages }}")
    assert chosen(run, base, tmp_path / "out") == "base"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@pytest.mark.long
def test_an_old_run_with_another_token_keeps_its_own(base: Path, tmp_path: Path) -> None:
    run = old_run(base, tmp_path / "run", token="<new>")
    assert chosen(run, base, tmp_path / "out") == "run"
    assert "<new>" in AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"pieces"


def test_a_run_that_kept_the_bases_files_is_not_compared_again(base: Path, tmp_path: Path) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    assert has_own_files(run, base)
    config = json.loads((run / "tokenizer_config.json").read_text())
    (run / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    assert has_own_files(run, base)
    (run / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "TokenizersBackend"}))
    assert not has_own_files(run, base)
