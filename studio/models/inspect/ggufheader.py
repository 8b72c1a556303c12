"""The header of a GGUF file: its figures and the names and shapes of its tensors. The tensors are not read; no torch.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file that holds nothing but the header will do.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import InputError
from studio.models.inspect.headers import TENSORS, Tensor
from studio.reach import opened

_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
# No count in a header is near the first (Gemma has 262,144 words and 514,906 merges), no text near the second,
# no header near the third; a list in a list is in none. Of long lists (words, merges) nothing is kept.
_MOST, _LONGEST, _MOST_BYTES, _KEPT = 1_000_000, 8_000_000, 400_000_000, 4096
_MOST_SIDES = 8
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
            count, pairs = _count(handle, TENSORS), _count(handle, _KEPT)
            values = {_text(handle): _value(handle, _number(handle, "I")) for _ in range(pairs)}
            stored = [_tensor(handle) for _ in range(count)]
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise InputError(
            "this is not a GGUF file with a complete header", where=str(file), fix="Copy or download the file again"
        ) from error
    kind = str(values.get("general.architecture"))
    config: dict[str, Any] = {ours: values.get(f"{kind}.{theirs}") for ours, theirs in _FIGURES.items()}
    config = {name: _largest(value) if isinstance(value, list) else value for name, value in config.items() if value}
    experts = "num_local_experts" in config
    config["model_type"] = "mixtral" if kind == "llama" and experts else _FAMILIES.get(kind, kind)
    tensors = [Tensor(name, "BF16", sides) for raw, sides in stored if (name := _renamed(raw))]
    names = {tensor.name: tensor for tensor in tensors}
    config["tie_word_embeddings"] = "lm_head.weight" not in names
    if "model.embed_tokens.weight" in names:
        config["vocab_size"] = names["model.embed_tokens.weight"].shape[0]
    return config, tensors


def _largest(values: list[Any]) -> int | None:
    """The largest of the figures of each block (heads differ between them in some families)."""
    return max((value for value in values if isinstance(value, int)), default=None)


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
    sides = [_count(handle, 2**40) for _ in range(_bounded(_number(handle, "I"), _MOST_SIDES))]
    handle.read(12)  # its type, and where it begins
    return name, tuple(reversed(sides))


def _number(handle: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", handle.read(struct.calcsize(f"<{code}")))[0]


def _bounded(count: int, most: int) -> int:
    if count > most:
        raise ValueError
    return count


def _count(handle: BinaryIO, most: int = _MOST) -> int:
    if handle.tell() > _MOST_BYTES:
        raise ValueError
    return _bounded(int(_number(handle, "Q")), most)


def _text(handle: BinaryIO) -> str:
    length = _count(handle, _LONGEST)
    data = handle.read(length)
    if len(data) < length:
        raise ValueError
    return data.decode("utf-8", "replace")


def _value(handle: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(handle)
    if kind != _LIST:
        return _number(handle, _PLAIN[kind])
    inner, count = _number(handle, "I"), _count(handle)
    if inner == _TEXT:
        texts = [_text(handle) for _ in range(min(count, _KEPT))]
        for _ in range(count - len(texts)):
            handle.seek(_count(handle, _LONGEST), 1)
        return texts
    form = _PLAIN[inner]  # KeyError: a list in a list
    values = [_number(handle, form) for _ in range(min(count, _KEPT))]
    handle.seek((count - len(values)) * struct.calcsize(f"<{form}"), 1)
    return values
