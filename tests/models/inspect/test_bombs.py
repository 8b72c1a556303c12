"""Headers and figures that no model has: a sentence soon, whatever is read of a model without its weights."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from studio.config.model import ModelConfig
from studio.errors import InputError
from studio.models.inspect.outline import laid_out, outline
from studio.models.inspect.shape import ModelShape
from studio.settings import read_settings


def gguf(*parts: bytes, tensors: int = 0, pairs: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + b"".join(parts)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    "content",
    [
        gguf(text(b"a"), struct.pack("<I", 9), struct.pack("<IQ", 9, 1) * 5000),
        gguf(text(b"a"), struct.pack("<IIQ", 9, 0, 2**31)),
        gguf(text(b"a"), struct.pack("<IIQ", 9, 8, 900_000), struct.pack("<Q", 0) * 10),
        gguf(struct.pack("<Q", 2**31)), gguf(tensors=2**31, pairs=0), gguf(pairs=2**31),
        gguf(text(b"t"), struct.pack("<I", 2**31), tensors=1, pairs=0),
    ],
    ids=["lists in lists", "a long list", "many texts", "a long text", "tensors", "values", "sides"],
)  # fmt: skip
def test_a_header_of_a_stranger_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with file.open("ab") as handle:
        handle.truncate(1 << 40)  # zeros without end
    began = time.process_time()
    with pytest.raises(InputError, match=r"not a GGUF file|config\.json"):
        outline(ModelConfig(path=str(file)), read_settings())
    assert time.process_time() - began < 10


@pytest.mark.parametrize("figures", [
    {"num_hidden_layers": 10**9}, {"num_hidden_layers": -1}, {"num_hidden_layers": 1.5},
    {"hidden_size": 10**400}, {"num_hidden_layers": 1999, "model_type": "mixtral", "num_local_experts": 1999},
])  # fmt: skip
def test_figures_that_no_model_has(figures: dict[str, Any]) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "vocab_size": 100, "intermediate_size": 8}  # fmt: skip
    with pytest.raises(InputError):
        ModelShape.from_parts({**config, **figures}, laid_out({**config, **figures}, set(), "here"))
