"""Sizes of well-known models, so that the memory plan can speak of them before anything is downloaded. No torch.

The figures, in presets/models/known.json, are those of the `config.json` of the named Hub repositories. They were
written down without a network and checked in two ways: transformers builds the tensors that are laid out here from the
same figures (tests/models/plan/test_cards.py), and the number of their elements is, to the last one, the published
number of parameters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from studio.models.inspect.headers import Tensor
from studio.models.inspect.shape import ModelShape
from studio.settings import PRESETS


@dataclass(frozen=True)
class KnownModel:
    """One published model.

    Attributes:
        name: of its preset, below presets/models/.
        hub: its Hub id.
        parameters: the published number; for DeepSeek-V3 without multi-token prediction and the 8-bit weights' scales.
        config: what the plan needs of config.json.
        biases: "qkv" where these three projections have one; no other of these models has any.
        norms: norms a block, of the hidden width.
        head_norms: query and key are normed within each head.
    """

    name: str
    hub: str
    parameters: int
    config: dict[str, Any]
    biases: str = ""
    norms: int = 2
    head_norms: bool = False

    @property
    def title(self) -> str:
        """Last part of the Hub id."""
        return self.hub.rpartition("/")[2]


# Read once, as it is shipped with the presets of these models.
KNOWN = tuple(KnownModel(**one) for one in json.loads((PRESETS / "models" / "known.json").read_text(encoding="utf-8")))


def shape_of(model: KnownModel) -> ModelShape:
    """The model's shape, as its files would give it."""
    return ModelShape.from_parts(model.config, tensors(model), where=model.hub)


def tensors(model: KnownModel) -> list[Tensor]:
    """List the tensors of the model's files: name, type, shape."""
    config = model.config
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (vocab, hidden), "model.norm": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = (vocab, hidden)
    biases: dict[str, tuple[int, ...]] = {}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        attention = _latent(config) if "kv_lora_rank" in config else _attention(model)
        shapes |= {f"{block}.self_attn.{name}": sides for name, sides in attention.items()}
        shapes |= {f"{block}.{name}": sides for name, sides in _mlp(config, layer).items()}
        shapes |= {f"{block}.norm_{number}_layernorm": (hidden,) for number in range(model.norms)}
        if model.biases:
            biases |= {f"{block}.self_attn.{letter}_proj": attention[f"{letter}_proj"][:1] for letter in model.biases}
    found = [Tensor(f"{name}.weight", "BF16", sides) for name, sides in shapes.items()]
    return found + [Tensor(f"{name}.bias", "BF16", sides) for name, sides in biases.items()]


def _attention(model: KnownModel) -> dict[str, tuple[int, ...]]:
    config = model.config
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    query, key = heads * head, config["num_key_value_heads"] * head
    if config["model_type"] == "phi3":
        return {"qkv_proj": (query + 2 * key, hidden), "o_proj": (hidden, query)}
    norms: dict[str, tuple[int, ...]] = {"q_norm": (head,), "k_norm": (head,)} if model.head_norms else {}
    return {
        "q_proj": (query, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden), "o_proj": (hidden, query), **norms
    }  # fmt: skip


def _latent(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1)."""
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    position, value = config["qk_rope_head_dim"], config["v_head_dim"]
    width = config["qk_nope_head_dim"] + position
    query: dict[str, tuple[int, ...]] = {"q_proj": (heads * width, hidden)}
    if low := config["q_lora_rank"]:
        query = {"q_a_proj": (low, hidden), "q_a_layernorm": (low,), "q_b_proj": (heads * width, low)}
    return query | {
        "kv_a_proj_with_mqa": (rank + position, hidden), "kv_a_layernorm": (rank,),
        "kv_b_proj": (heads * (config["qk_nope_head_dim"] + value), rank), "o_proj": (hidden, heads * value),
    }  # fmt: skip


def _mlp(config: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    hidden, inner, kind = config["hidden_size"], config["intermediate_size"], config["model_type"]
    if kind == "phi3":
        return {"mlp.gate_up_proj": (2 * inner, hidden), "mlp.down_proj": (hidden, inner)}
    if kind == "mixtral":
        place, count, names = "block_sparse_moe", config["num_local_experts"], ("w1", "w3", "w2")
        return _experts(f"{place}.experts", count, names, hidden, inner) | {f"{place}.gate": (count, hidden)}
    names = ("gate_proj", "up_proj", "down_proj")
    if "n_routed_experts" not in config or layer < config["first_k_dense_replace"]:
        return _gated("mlp", names, hidden, inner)
    count, narrow = config["n_routed_experts"], config["moe_intermediate_size"]
    shared = _gated("mlp.shared_experts", names, hidden, config["n_shared_experts"] * narrow)
    return _experts("mlp.experts", count, names, hidden, narrow) | shared | {"mlp.gate": (count, hidden)}


def _gated(place: str, names: tuple[str, ...], hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Gate, up and down; of these names."""
    gate, up, down = (f"{place}.{name}" for name in names)
    return {gate: (inner, hidden), up: (inner, hidden), down: (hidden, inner)}


def _experts(
    place: str, count: int, names: tuple[str, ...], hidden: int, inner: int
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    found: dict[str, tuple[int, ...]] = {}
    for number in range(count):
        found |= _gated(f"{place}.{number}", names, hidden, inner)
    return found
