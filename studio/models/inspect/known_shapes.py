"""Sizes of well-known models, so that the memory plan can speak of them before anything is downloaded. Data; no torch.

The figures are those of the `config.json` of the named Hub repositories. They were written down without a network and
checked in two ways: transformers builds the tensors that are laid out here from the same figures
(tests/models/test_cards.py), and the number of their elements is, to the last one, the published number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio.models.inspect.headers import Tensor
from studio.models.inspect.shape import ModelShape


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


def _config(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, context: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": context, "tie_word_embeddings": False, **more,
    }  # fmt: skip


_TIED = {"tie_word_embeddings": True}
_LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

KNOWN = (
    KnownModel(
        "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008,
        _config("llama", 576, 1536, 30, 9, 3, 49152, 8192, **_TIED),
    ),
    KnownModel(
        "smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120,
        _config("llama", 960, 2560, 32, 15, 5, 49152, 8192, **_TIED),
    ),
    KnownModel(
        "smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384,
        _config("llama", 2048, 8192, 24, 32, 32, 49152, 8192, **_TIED),
    ),
    KnownModel(
        "llama3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400,
        _config("llama", 2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64, **_TIED),
    ),
    KnownModel(
        "llama3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824,
        _config("llama", 3072, 8192, 28, 24, 8, 128256, 131072, head_dim=128, **_TIED),
    ),
    KnownModel(
        "llama3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248,
        _config("llama", 4096, 14336, 32, 32, 8, 128256, 131072),
    ),
    KnownModel(
        "mistral-7b-instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552,
        _config("mistral", 4096, 14336, 32, 32, 8, 32768, 32768),
    ),
    KnownModel(
        "mixtral-8x7b-instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1", 46_702_792_704,
        _config("mixtral", 4096, 14336, 32, 32, 8, 32000, 32768, num_local_experts=8, num_experts_per_tok=2),
    ),
    KnownModel(
        "qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", 494_032_768,
        _config("qwen2", 896, 4864, 24, 14, 2, 151936, 32768, **_TIED), biases="qkv",
    ),
    KnownModel(
        "qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct", 7_615_616_512,
        _config("qwen2", 3584, 18944, 28, 28, 4, 152064, 32768), biases="qkv",
    ),
    KnownModel(
        "qwen3-0.6b", "Qwen/Qwen3-0.6B", 596_049_920,
        _config("qwen3", 1024, 3072, 28, 16, 8, 151936, 40960, head_dim=128, **_TIED), head_norms=True,
    ),
    KnownModel(
        "qwen3-4b", "Qwen/Qwen3-4B", 4_022_468_096,
        _config("qwen3", 2560, 9728, 36, 32, 8, 151936, 40960, head_dim=128, **_TIED), head_norms=True,
    ),
    KnownModel(
        "qwen3-8b", "Qwen/Qwen3-8B", 8_190_735_360,
        _config("qwen3", 4096, 12288, 36, 32, 8, 151936, 40960, head_dim=128), head_norms=True,
    ),
    KnownModel(
        "gemma2-2b-it", "google/gemma-2-2b-it", 2_614_341_888,
        _config("gemma2", 2304, 9216, 26, 8, 4, 256000, 8192, head_dim=256, **_TIED), norms=4,
    ),
    KnownModel(
        "gemma2-9b-it", "google/gemma-2-9b-it", 9_241_705_984,
        _config("gemma2", 3584, 14336, 42, 16, 8, 256000, 8192, head_dim=256, **_TIED), norms=4,
    ),
    KnownModel(
        "gemma3-1b-it", "google/gemma-3-1b-it", 999_885_952,
        _config("gemma3_text", 1152, 6912, 26, 4, 1, 262144, 32768, head_dim=256, **_TIED), norms=4, head_norms=True,
    ),
    KnownModel(
        "phi3.5-mini-instruct", "microsoft/Phi-3.5-mini-instruct", 3_821_079_552,
        _config("phi3", 3072, 8192, 32, 32, 32, 32064, 131072),
    ),
    KnownModel("phi4", "microsoft/phi-4", 14_659_507_200, _config("phi3", 5120, 17920, 40, 40, 10, 100352, 16384)),
    KnownModel(
        "yi1.5-6b-chat", "01-ai/Yi-1.5-6B-Chat", 6_061_035_520, _config("llama", 4096, 11008, 32, 32, 4, 64000, 4096)
    ),
    KnownModel(
        "yi1.5-9b-chat", "01-ai/Yi-1.5-9B-Chat", 8_829_407_232, _config("llama", 4096, 11008, 48, 32, 4, 64000, 4096)
    ),
    KnownModel(
        "deepseek-v2-lite-chat", "deepseek-ai/DeepSeek-V2-Lite-Chat", 15_706_484_224,
        _config(
            "deepseek_v2", 2048, 10944, 27, 16, 16, 102400, 163840, **_LATENT, q_lora_rank=None, n_routed_experts=64,
            n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408, first_k_dense_replace=1,
        ),
    ),
    KnownModel(
        "deepseek-v3", "deepseek-ai/DeepSeek-V3", 671_026_404_352,
        _config(
            "deepseek_v3", 7168, 18432, 61, 128, 128, 129280, 163840, **_LATENT, q_lora_rank=1536,
            n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048,
            first_k_dense_replace=3,
        ),
    ),
)  # fmt: skip
# For the table of LLaMA-Factory's README, which was made of Llama 2.
LLAMA2 = {
    "7B": _config("llama", 4096, 11008, 32, 32, 32, 32000, 4096),
    "13B": _config("llama", 5120, 13824, 40, 40, 40, 32000, 4096),
    "70B": _config("llama", 8192, 28672, 80, 64, 8, 32000, 4096),
}


def known_model(name: str) -> KnownModel:
    """Return the record of that name.

    Raises:
        KeyError: there is none.
    """
    return {model.name: model for model in KNOWN}[name]


def shape_of(model: KnownModel) -> ModelShape:
    """The model's shape, as its files would give it."""
    return ModelShape.from_parts(model.config, tensors(model), where=model.hub)


def plain_shape(config: dict[str, Any]) -> ModelShape:
    """The shape of a Llama of these figures."""
    return shape_of(KnownModel("", "", 0, config))


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
