"""The header of a GGUF file: its figures and the names and shapes of its tensors. The tensors are not read; no torch.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file that holds nothing but the header will do.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import InputError
from studio.models.headers import Tensor
from studio.reach import opened

_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MOST = 2**31  # No count or length in a header is near it: a larger one is no GGUF file.
# config.json's names of the figures, which GGUF has behind the name of the architecture.
_FIGURES = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length", "max_position_embeddings": "context_length",
    "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}  # fmt: skip
_FAMILIES = {"gemma3": "gemma3_text", "qwen3moe": "qwen3_moe", "qwen2moe": "qwen2_moe", "deepseek2": "deepseek_v2"}
_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_qkv": "self_attn.qkv_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj", "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}  # fmt: skip
_OUTSIDE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def read_gguf(file: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """Return what config.json of the model would say, and its tensors under transformers' names.

    Raises:
        InputError: it is no GGUF file, or its header is cut short.
    """
    try:
        with opened(file) as handle:
            if handle.read(4) != b"GGUF" or _number(handle, "I") not in (2, 3):
                raise ValueError
            count, pairs = _count(handle), _count(handle)
            values = {_text(handle): _value(handle, _number(handle, "I")) for _ in range(pairs)}
            stored = [_tensor(handle) for _ in range(count)]
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise InputError(
            "this is not a GGUF file with a whole header", where=str(file), fix="Copy or download the file again"
        ) from error
    kind = str(values.get("general.architecture"))
    config: dict[str, Any] = {ours: values.get(f"{kind}.{theirs}") for ours, theirs in _FIGURES.items()}
    config = {name: max(value) if isinstance(value, list) else value for name, value in config.items() if value}
    experts = "num_local_experts" in config
    config["model_type"] = "mixtral" if kind == "llama" and experts else _FAMILIES.get(kind, kind)
    tensors = [Tensor(name, "BF16", sides) for raw, sides in stored if (name := _renamed(raw))]
    names = {tensor.name: tensor for tensor in tensors}
    config["tie_word_embeddings"] = "lm_head.weight" not in names
    if "model.embed_tokens.weight" in names:
        config["vocab_size"] = names["model.embed_tokens.weight"].shape[0]
    return config, tensors


def _renamed(name: str) -> str:
    """transformers' name of a tensor; empty for tables that are no weights."""
    block = _BLOCK.fullmatch(name)
    if block is not None:
        number, part, kind = block.groups()
        return f"model.layers.{number}.{_NAMES.get(part, part)}.{kind}"
    part, _, kind = name.rpartition(".")
    return "" if part.startswith("rope_") else f"{_OUTSIDE.get(part, part)}.{kind}"


def _tensor(handle: BinaryIO) -> tuple[str, tuple[int, ...]]:
    name = _text(handle)
    sides = [_count(handle) for _ in range(_number(handle, "I"))]
    handle.read(12)  # its type, and where it begins
    return name, tuple(reversed(sides))


def _number(handle: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", handle.read(struct.calcsize(f"<{code}")))[0]


def _count(handle: BinaryIO) -> int:
    count = int(_number(handle, "Q"))
    if count > _MOST:
        raise ValueError
    return count


def _text(handle: BinaryIO) -> str:
    length = _count(handle)
    data = handle.read(length)
    if len(data) < length:
        raise ValueError
    return data.decode("utf-8", "replace")


def _value(handle: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(handle)
    if kind == _LIST:
        inner = _number(handle, "I")
        return [_value(handle, inner) for _ in range(_count(handle))]
    return _number(handle, _PLAIN[kind])
