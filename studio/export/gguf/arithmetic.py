"""What llama.cpp computes in another way than a model's config asks, by rules in its code and no key of a GGUF.

Its files load and answer, so only the comparison after the export would show it. Each rule was measured on a random
model of two layers: KL 3e-2 for the scale of Gemma's attention, 8e-3 for the weights of a mixture's experts, where
other models have 1e-7 (llama.cpp 0.5, `src/models`).
"""

from __future__ import annotations

from typing import Any

# Whether a chosen expert's weight is divided by the sum of those chosen.
_NORMED = {"qwen3_moe": True, "qwen2_moe": False, "olmoe": False}
# Gemma with so many layers is the 27B, whose attention has a scale of its own.
_GEMMA_27B = {"gemma2": 46, "gemma3_text": 62, "gemma3": 62}


def difference(raw: dict[str, Any]) -> str:
    """Say what differs; empty for nothing that is known.

    Args:
        raw: config.json.
    """
    text = raw.get("text_config")
    core = {**raw, **text} if isinstance(text, dict) else raw
    kind = str(raw.get("model_type"))
    if kind in _NORMED and int(core.get("num_experts_per_tok") or 1) > 1:
        asked = bool(core.get("norm_topk_prob"))
        if asked is not _NORMED[kind]:
            does = "always" if _NORMED[kind] else "never"
            return f"its norm_topk_prob is {str(asked).lower()}, but llama.cpp {does} normalizes expert weights here"
    scale = core.get("query_pre_attn_scalar")
    if kind in _GEMMA_27B and isinstance(scale, int | float):
        large = core.get("num_hidden_layers") == _GEMMA_27B[kind]
        wide = core["hidden_size"] // core["num_attention_heads"] if large else core.get("head_dim", 256)
        if scale != wide:
            return f"its query_pre_attn_scalar is {scale:g}, but llama.cpp scales attention by {wide}"
    return ""
