"""Families of models: which layers an adapter goes on, and what to know of each. Data; no torch.

Chosen by `model_type` of config.json, so models that share an architecture are one family (Yi is a Llama). The names
are those of transformers 5; whether a checkpoint has them is seen in its headers (`studio.models.inspect.shape`). A
family that is not here can be trained all the same: all-linear needs no names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = (*_ATTENTION, "gate_proj", "up_proj", "down_proj")
_EXPERTS = (
    "transformers 5 stores all experts of a block in one parameter, and the router likewise, so names do not match "
    "them: named target modules cover attention only"
)
_FROZEN = "bitsandbytes does not quantize the experts, so QLoRA saves little"


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: what people call it.
        model_types: `model_type` in config.json.
        targets: last part of the names of the linear layers that an adapter is usually put on; each exists.
        template: name of the chat template that its instruction models ship with; empty for base models only.
        also: other models of this architecture.
        note: what differs from other families; empty for nothing.
    """

    name: str
    model_types: tuple[str, ...]
    targets: tuple[str, ...]
    template: str
    also: tuple[str, ...] = ()
    note: str = ""


FAMILIES = (
    Family(
        "Llama", ("llama",), _GATED, "llama3", also=("Yi", "SmolLM", "SmolLM2", "TinyLlama", "DeepSeek LLM"),
        note="Yi and SmolLM use ChatML.",
    ),
    Family("Mistral", ("mistral",), _GATED, "mistral"),
    Family(
        "Mixtral", ("mixtral",), _ATTENTION, "mistral",
        note=f"{_EXPERTS}. all-linear adapts router and experts too (PEFT 0.21), gate and up with twice the rank, and "
        f"copies each block's experts in every step. {_FROZEN}.",
    ),
    Family(
        "Qwen", ("qwen",), ("c_attn", "c_proj", "w1", "w2"), "chatml",
        note="Qwen 1: the code comes with the model (trust_remote_code); transformers has no implementation.",
    ),
    Family("Qwen 2", ("qwen2",), _GATED, "chatml", also=("Qwen 1.5", "Qwen 2.5", "QwQ", "DeepSeek R1 Distill Qwen")),
    Family(
        "Qwen 2 MoE", ("qwen2_moe",), _GATED, "chatml", also=("Qwen 1.5 MoE",),
        note=f"{_EXPERTS} and the shared expert, which is a layer. {_FROZEN}.",
    ),
    Family("Qwen 3", ("qwen3",), _GATED, "chatml"),
    Family(
        "Qwen 3 MoE", ("qwen3_moe",), _ATTENTION, "chatml",
        note=f"{_EXPERTS}. all-linear adapts router and experts too (PEFT 0.21). {_FROZEN}.",
    ),
    Family(
        "Gemma", ("gemma", "gemma2", "gemma3_text"), _GATED, "gemma", also=("Gemma 2", "Gemma 3 1B"),
        note="No system prompt. Larger Gemma 3 models also read images and are another class, which the studio "
        "refuses.",
    ),
    Family("SmolLM3", ("smollm3",), _GATED, "chatml"),
    Family(
        "Phi-3", ("phi3",), ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), "phi3", also=("Phi-3.5", "Phi-4"),
        note="Query, key and value are one layer, gate and up another. Phi-4 14B has its own ChatML variant.",
    ),
    Family(
        "Phi", ("phi",), ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"), "", also=("Phi-1", "Phi-1.5", "Phi-2")
    ),
    Family(
        "GPT-NeoX", ("gpt_neox",), ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), "",
        also=("Pythia", "StableLM Alpha", "Dolly 2"),
    ),
    Family(
        "GPT-2", ("gpt2",), ("c_attn", "c_proj", "c_fc"), "",
        note="Its layers are Conv1D, with transposed weights; LoRA supports them.",
    ),
    Family(
        "Falcon", ("falcon",), ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), "falcon",
        note="The 7B has one key and value head for all query heads; no gate.",
    ),
    Family(
        "DeepSeek", ("deepseek_v2", "deepseek_v3"),
        ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"), "deepseek",
        also=("DeepSeek R1", "DeepSeek Coder V2", "Moonlight"),
        note=f"{_EXPERTS}. PEFT 0.21 applies gate_proj, up_proj and down_proj to the experts, so the shared "
        f"experts and the first dense blocks cannot be targeted either. {_FROZEN}. Lite models have "
        "q_proj, the others q_a_proj and q_b_proj. The weights of V3 are published in 8 bits, which qlora refuses.",
    ),
)  # fmt: skip


def family_of(config: dict[str, Any]) -> Family | None:
    """Return the family of a model by its config.json, None for one that is not in the table.

    Of targets that exclude each other only those stay that this model has.
    """
    text = config.get("text_config")
    kinds = [config.get("model_type"), text.get("model_type") if isinstance(text, dict) else None]
    found = next((family for family in FAMILIES if set(kinds) & set(family.model_types)), None)
    if found is None or "q_a_proj" not in found.targets:
        return found
    missing = ("q_proj",) if config.get("q_lora_rank") else ("q_a_proj", "q_b_proj")
    return replace(found, targets=tuple(name for name in found.targets if name not in missing))


@dataclass(frozen=True)
class RankAdvice:
    """A rank and what it is for."""

    rank: int
    use: str


_RANKS = (
    RankAdvice(8, "simple: a style, a tone, a fixed format"),
    RankAdvice(16, "usual: most tasks"),
    RankAdvice(32, "complex: several tasks, long answers, code"),
    RankAdvice(64, "much new knowledge: a domain, a language"),
    RankAdvice(128, "from here on close to full fine-tuning, in memory too"),
)


def rank_guide() -> tuple[RankAdvice, ...]:
    """Return which rank is for what, the smallest first. Rules of thumb, not measured here."""
    return _RANKS
