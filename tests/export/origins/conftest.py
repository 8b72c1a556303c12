"""Models that no run made: a small one with the real tokenizer, which llama.cpp takes, and an adapter beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from tests.export.conftest import perturb

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CARD = "---\nlicense: apache-2.0\nbase_model: lab/parent\n---\n# Lab\n"


@pytest.fixture(scope="session")
def folder(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in float16 with a chat template, as somebody might have downloaded it, and its card."""
    made = tmp_path_factory.mktemp("elsewhere") / "lab-model"
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).half().save_pretrained(made)
    for name in TOKENIZER:
        if (model_path / name).is_file():
            shutil.copy(model_path / name, made / name)
    (made / "README.md").write_text(CARD)
    return made


@pytest.fixture(scope="session")
def adapter_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of that model, without a tokenizer of its own, as PEFT saves it."""
    made = tmp_path_factory.mktemp("elsewhere") / "lab-adapter"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(5)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    perturb(get_peft_model(model, lora), 0.3).save_pretrained(made)
    config = json.loads((made / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    return made
