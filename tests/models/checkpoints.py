"""Tiny checkpoints written without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

SIZES = {"hidden": 16, "inner": 32, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 100}


def tensor_shapes(tied: bool = True, **sizes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama checkpoint of these sizes."""
    s = {**SIZES, **sizes}
    hidden, inner, key = s["hidden"], s["inner"], s["hidden"] * s["kv_heads"] // s["heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (s["vocab"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(s["layers"]):
        block = f"model.layers.{layer}."
        shapes |= {
            block + "self_attn.q_proj.weight": (hidden, hidden),
            block + "self_attn.k_proj.weight": (key, hidden),
            block + "self_attn.v_proj.weight": (key, hidden),
            block + "self_attn.o_proj.weight": (hidden, hidden),
            block + "mlp.gate_proj.weight": (inner, hidden),
            block + "mlp.up_proj.weight": (inner, hidden),
            block + "mlp.down_proj.weight": (hidden, inner),
            block + "input_layernorm.weight": (hidden,),
            block + "post_attention_layernorm.weight": (hidden,),
        }
    if not tied:
        shapes["lm_head.weight"] = (s["vocab"], hidden)
    return shapes


def llama_config(tied: bool = True, **sizes: int) -> dict[str, Any]:
    """The `config.json` of such a checkpoint."""
    s = {**SIZES, **sizes}
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": s["hidden"],
        "intermediate_size": s["inner"], "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv_heads"], "vocab_size": s["vocab"], "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
    }  # fmt: skip


def write_safetensors(file: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """Write zeros in the safetensors format: header length, JSON header, data."""
    width, offset, header = (2 if dtype == "BF16" else 4), 0, {}
    for name, shape in shapes.items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def write_checkpoint(folder: Path, shards: int = 1, tied: bool = True, **sizes: int) -> Path:
    """Write a whole checkpoint of zeros: config, weights in `shards` files, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config(tied, **sizes)))
    (folder / "tokenizer.json").write_text("{}")
    shapes = tensor_shapes(tied, **sizes)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", shapes)
        return folder
    names, weight_map = list(shapes), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: shapes[name] for name in names[shard::shards]}
        write_safetensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
