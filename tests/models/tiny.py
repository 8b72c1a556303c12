"""Tiny random checkpoints of every architecture that the studio names, made by the installed transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_PLAIN: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
_LATENT = {
    **_PLAIN, **_EXPERTS, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
# model_type -> what its config class is given. hidden 32, two blocks.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "mixtral": {**_GROUPED, "num_local_experts": 4},
    "qwen2": _GROUPED,
    "qwen2_moe": {**_GROUPED, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 40},
    "qwen3": {**_GROUPED, "head_dim": 16},
    "qwen3_moe": {**_GROUPED, **_EXPERTS, "head_dim": 16, "num_experts": 4},
    "gemma": {**_GROUPED, "head_dim": 16},
    "gemma2": {**_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma3_text": {**_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16},
    "smollm3": _GROUPED,
    "phi3": _GROUPED,
    "phi": _PLAIN,
    "gpt_neox": _PLAIN,
    "gpt2": {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "falcon": {name: value for name, value in _PLAIN.items() if name != "intermediate_size"},
    "deepseek_v2": {**_LATENT, "q_lora_rank": None},
    "deepseek_v3": {**_LATENT, "q_lora_rank": 16, "n_group": 2, "topk_group": 1},
}
# Not in the studio's table: architectures that llama.cpp does not know.
OTHERS: dict[str, dict[str, Any]] = {"opt": {**_PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 32}}


def save_tiny(folder: Path, model_type: str, **changes: Any) -> Path:
    """Write a random checkpoint of this architecture; the same weights each time."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**(ARCHITECTURES | OTHERS)[model_type], **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
