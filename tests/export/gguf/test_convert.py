"""The converter's refusals as sentences, and the folder it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import InputError, StudioError
from studio.export.gguf.checkpoint import copy_small_files, link_checkpoint, weight_files
from studio.export.gguf.convert import convert, refusal
from studio.export.gguf.toolchain import ensure_toolchain
from studio.export.steps import StepResult
from studio.settings import Settings
from tests.export.conftest import Counter, Recorder


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()", "pre-tokenizer"),
        ("ERROR:hf-to-gguf:Model FooForCausalLM is not supported", "the architecture FooForCausalLM"),
        ("FileNotFoundError: File not found: /x/tokenizer.model", "needs tokenizer.model"),
        ("ValueError: Error: Missing /x/tokenizer.model", "needs tokenizer.model"),
        ("OSError: [Errno 28] No space left on device", "the disk filled up"),
        ("ValueError: Can not map tensor 'model.x'", "ValueError: Can not map tensor 'model.x'"),
    ],
)
def test_refusals(line: str, said: str) -> None:
    error = refusal(StepResult(1, 0.0, 0, ["Traceback (most recent call last):", line, ""]), Path("/jobs/x/work/demo"))
    assert said in error.what
    assert error.fix
    assert "/jobs" not in error.sentence, "a work folder means nothing to a person"


def test_an_unknown_architecture_is_refused_by_the_real_converter(
    session_settings: Settings, tmp_path: Path, watcher: Recorder, counter: Counter
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["FooForCausalLM"], "model_type": "foo"}))
    save_file({"x": torch.zeros(2, 2)}, folder / "model.safetensors")
    tools = ensure_toolchain(session_settings, watcher)
    with pytest.raises(StudioError, match="FooForCausalLM"):
        convert(folder, tmp_path / "out.gguf", "f16", {"general.name": "foo"}, tools, watcher, counter)
    assert not list(tmp_path.glob("out.gguf*"))


def test_no_code_reaches_the_converter(tmp_path: Path) -> None:
    run, base, seen = (tmp_path / name for name in ("run", "base", "seen"))
    for folder in (run, base):
        folder.mkdir()
        save_file({"x": torch.zeros(2)}, folder / "model.safetensors")
        (folder / "evil.py").write_text("raise SystemExit('ran')")
    (run / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "llama"}))
    (run / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}, "a": 1}))
    (run / "tokenizer.model").write_bytes(b"pieces")
    link_checkpoint(run, seen, base, run)
    assert json.loads((seen / "config.json").read_text()) == {"model_type": "llama"}
    assert json.loads((seen / "tokenizer_config.json").read_text()) == {"a": 1}
    assert sorted(path.name for path in seen.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json",
    ]  # fmt: skip
    assert (seen / "model.safetensors").is_symlink()


def test_the_converter_gets_one_tokenizer_and_not_halves_of_two(tmp_path: Path) -> None:
    run, base, out = (tmp_path / name for name in ("run", "base", "out"))
    for folder in (run, base, out):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps({"of": folder.name}))
    (base / "chat_template.jinja").write_text("base's")
    (base / "vocab.json").write_text("{}")
    (out / "tokenizer.json").unlink()
    copy_small_files(run, base, run, out)
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json"]
    assert json.loads((out / "tokenizer.json").read_text()) == {"of": "run"}


def test_of_two_templates_the_converter_gets_the_one_that_transformers_reads(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    out.mkdir()
    (run / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old", "a": 1}))
    (run / "chat_template.jinja").write_text("new")
    copy_small_files(run, None, run, out)
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"a": 1}
    assert (out / "chat_template.jinja").read_text() == "new"


@pytest.mark.parametrize("named", ["gone.safetensors", "../elsewhere.safetensors"])
def test_an_index_that_names_what_is_not_there(named: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "elsewhere.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": named}}))
    with pytest.raises(InputError, match="is missing"):
        weight_files(folder)
