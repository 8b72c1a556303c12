"""Mixtures of experts: trained with their balancing loss, and afterwards a model that writes like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from studio.methods import METHODS
from studio.models.inspect.attention import answer_options
from studio.models.inspect.headers import read_config
from studio.settings import Settings
from studio.train.loop.saving import restore_switches
from tests.parity.made import VOCABULARY
from tests.train.test_matrix import run_cell

EVERY_DAY = [("sft", "full"), ("grpo", "full")]
CELLS = [(method, tuning) for method in METHODS for tuning in ("full", "lora")]


@pytest.fixture(scope="module")
def experts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Qwen 3 MoE with the tiny model's tokenizer."""
    folder = tmp_path_factory.mktemp("experts") / "model"
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("method", "tuning"),
    [*EVERY_DAY, *(pytest.param(*cell, marks=pytest.mark.long) for cell in CELLS if cell not in EVERY_DAY)],
)
def test_what_was_trained_writes(experts: Path, method: str, tuning: str, settings: Settings, tmp_path: Path) -> None:
    context = run_cell(settings, experts, tmp_path, method, tuning, rank=4, dtype="float32")
    saved = context.job.model
    if tuning == "full":
        assert read_config(saved)["output_router_logits"] is read_config(experts)["output_router_logits"]
        if METHODS[method].result != "scorer":
            write(saved)


def test_a_base_that_asks_for_router_logits_writes(experts: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(experts, base)
    (base / "config.json").write_text(json.dumps(read_config(experts) | {"output_router_logits": True}))
    write(base)


def test_the_word_is_the_bases_in_nested_configs_too(tmp_path: Path) -> None:
    for name, inner in (("base", {"hidden_size": 8}), ("run", {"hidden_size": 8, "output_router_logits": True})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "x", "text_config": inner}))
    restore_switches(tmp_path / "base", tmp_path / "run")
    assert read_config(tmp_path / "run") == read_config(tmp_path / "base")


def write(folder: Path) -> None:
    """Two prompts of different lengths, as the evaluation asks them."""
    model = AutoModelForCausalLM.from_pretrained(folder, **answer_options(read_config(folder)))
    ids, mask = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    written = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert written.shape == (2, 7)
