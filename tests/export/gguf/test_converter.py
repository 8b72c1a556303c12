"""Configs get the names that the converter knows, and what llama.cpp computes otherwise is known."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from studio.export.gguf.arithmetic import difference
from studio.export.gguf.converter import older


@pytest.mark.parametrize(
    ("model_type", "options", "expected"),
    [
        ("gpt_neox", {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}},
         {"rotary_pct": 0.5, "rotary_emb_base": 500.0, "rope_theta": 500.0}),
        ("phi", {"rope_parameters": {"rope_theta": 9.0, "partial_rotary_factor": 0.25}},
         {"partial_rotary_factor": 0.25}),
        ("gemma3_text", {"rope_parameters": {
            "full_attention": {"rope_theta": 7.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"},
        }}, {"rope_theta": 7.0, "rope_local_base_freq": 3.0}),
        ("falcon", {"multi_query": True}, {"num_kv_heads": 1}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 8}, {"num_kv_heads": 8}),
        ("deepseek_v2", {"q_lora_rank": None}, {"q_lora_rank": 0}),
        ("deepseek_v3", {"q_lora_rank": 12}, {"q_lora_rank": 12, "scoring_func": "sigmoid"}),
        ("gpt2", {"n_positions": 77}, {"n_ctx": 77}),
        ("llama", {"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}),
    ],
)  # fmt: skip
def test_old_names_stand_beside_the_new_ones(
    model_type: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    values = AutoConfig.for_model(model_type, **options).to_dict()
    found = older(values)
    assert {name: found[name] for name in expected} == expected
    assert older(found) == found, "an older config stays as it is"
    kept = {name: value for name, value in values.items() if name != "num_kv_heads" and value is not None}
    assert {name: found[name] for name in kept} == kept, "no value is replaced"


def test_a_scaled_rope_has_its_old_name() -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    found = older({"rope_parameters": rope})
    assert found["rope_scaling"]["type"] == "linear" and found["rope_scaling"]["factor"] == 2.0
    assert "rope_scaling" not in older({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}})
    assert older({"rotary_pct": 0.25, "rope_parameters": {"partial_rotary_factor": 0.5}})["rotary_pct"] == 0.25


GEMMA = {"hidden_size": 4608, "num_attention_heads": 32, "head_dim": 128}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "gemma2", **GEMMA, "num_hidden_layers": 46, "query_pre_attn_scalar": 144}, ""),
        ({"model_type": "gemma2", **GEMMA, "num_hidden_layers": 42, "query_pre_attn_scalar": 128}, ""),
        ({"model_type": "gemma2", **GEMMA, "num_hidden_layers": 42, "query_pre_attn_scalar": 144}, "query_pre"),
        ({"model_type": "gemma3", "text_config": {**GEMMA, "query_pre_attn_scalar": 144}}, "query_pre"),
        ({"model_type": "qwen3_moe", "num_experts_per_tok": 8, "norm_topk_prob": True}, ""),
        ({"model_type": "qwen3_moe", "num_experts_per_tok": 8, "norm_topk_prob": False}, "norm_topk_prob"),
        ({"model_type": "qwen3_moe", "num_experts_per_tok": 8}, "norm_topk_prob"),
        ({"model_type": "olmoe", "num_experts_per_tok": 8, "norm_topk_prob": True}, "norm_topk_prob"),
        ({"model_type": "llama"}, ""),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_said(config: dict[str, Any], name: str) -> None:
    assert (name in difference(config)) if name else not difference(config)
