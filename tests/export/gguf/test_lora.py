"""An adapter for llama.cpp adds what PEFT adds, with one scale for every layer, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from studio.errors import InputError
from studio.export.gguf.lora import prescale
from tests.export.conftest import perturb

LAYERS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def adapter_of(base: Path, folder: Path, **options: Any) -> Path:
    asked: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": LAYERS} | options
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **asked))
    perturb(model, 0.1).save_pretrained(folder)
    return folder


def deltas(folder: Path) -> dict[str, torch.Tensor]:
    """What llama.cpp adds: B·A times lora_alpha over the rank of the matrices."""
    held = load_file(folder / "adapter_model.safetensors")
    alpha = json.loads((folder / "adapter_config.json").read_text())["lora_alpha"]
    names = [name.removesuffix(".lora_A.weight") for name in held if name.endswith(".lora_A.weight")]
    halves = {name: (held[f"{name}.lora_A.weight"], held[f"{name}.lora_B.weight"]) for name in names}
    return {name: b @ a * (alpha / a.shape[0]) for name, (a, b) in halves.items()}


@pytest.mark.parametrize(
    ("options", "rescaled"),
    [({}, 0), ({"use_rslora": True}, 6), ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}, 2),
     ({"use_rslora": True, "rank_pattern": {"down_proj": 8}}, 6)],
)  # fmt: skip
def test_every_layer_gets_what_peft_adds(options: dict[str, Any], rescaled: int, tiny: Path, tmp_path: Path) -> None:
    adapter = adapter_of(tiny, tmp_path / "adapter", **options)
    answer = prescale(adapter, tiny, tmp_path / "out")
    assert answer["layers"] == 6
    before = LlamaForCausalLM.from_pretrained(tiny)
    after = LlamaForCausalLM.from_pretrained(tiny)
    merged = PeftModel.from_pretrained(after, adapter).merge_and_unload().state_dict()
    found = deltas(tmp_path / "out")
    for name, delta in found.items():
        key = name.removeprefix("base_model.model.") + ".weight"
        torch.testing.assert_close(delta, merged[key] - before.state_dict()[key], rtol=1e-4, atol=1e-6)
    assert len(found) == 6 and answer["rescaled"] == rescaled
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"use_dora": True}, "DoRA"), ({"modules_to_save": ["norm"]}, "modules_to_save"), ({"bias": "all"}, "."),
     ({"target_modules": ["embed_tokens"]}, "neither a LoRA matrix"), ({"target_modules": ["lm_head"]}, "lm_head")],
)  # fmt: skip
def test_what_llama_cpp_cannot_load_is_refused(
    options: dict[str, Any], reason: str, tiny: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny, tmp_path / "adapter", **options)
    if "bias" in options:  # a Llama has none; an adapter of another model may
        held = load_file(adapter / "adapter_model.safetensors")
        held["base_model.model.model.layers.0.self_attn.q_proj.bias"] = torch.ones(16)
        save_file(held, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        reason = "biases"
    with pytest.raises(InputError, match=f"cannot load this adapter by itself: .*{reason}") as error:
        prescale(adapter, tiny, tmp_path / "out")
    assert error.value.fix == "Export to gguf, where it is merged into the model"
    assert not (tmp_path / "out").exists()
