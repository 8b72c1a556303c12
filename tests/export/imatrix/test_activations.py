"""What llama.cpp's matrices are given is added up right, under llama.cpp's own names, for dense models and experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM

from studio.errors import StudioError
from studio.export.gguf.toolchain import find_toolchain
from studio.export.gguf.trial import as_gguf, fill
from studio.export.imatrix import activations
from studio.export.imatrix.activations import Collector
from studio.export.imatrix.make import collect
from studio.settings import Settings

SMALL: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
# What llama.cpp computes in any case, whatever a config says (studio.export.gguf.arithmetic).
OWN: dict[str, dict[str, Any]] = {"gemma3_text": {"query_pre_attn_scalar": 16}}
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
}  # fmt: skip
ROWS = [[5, 9, 200, 31, 7, 7, 120], [8, 4, 77, 250, 13, 99, 101, 54, 3, 3, 3], [42]]
# Inputs agree to what float32 leaves of two programs; a shifted or missing row changes them by percents. Gemma's GELU
# comes out of a table of float16 in llama.cpp: 5e-4 each time, twice that in squares, and through two layers.
CLOSE, BY_TABLE = {"rtol": 2e-4, "atol": 1e-6}, {"rtol": 3e-3, "atol": 1e-6}

Make = Callable[..., tuple[Any, Path]]


@pytest.fixture
def make(settings: Settings, tmp_path: Path) -> Make:
    """Make a small model and its GGUF."""

    def made(model_type: str, **options: Any) -> tuple[Any, Path]:
        tools = find_toolchain(settings)
        assert tools is not None
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SMALL, **options)).float().eval()
        fill(model)
        return model, as_gguf(tools, model, tmp_path)

    return made


def inputs_of(model: Any, suffix: str) -> list[Any]:
    """What modules whose names end so are given for all rows, (tokens, columns) each, by hooks of torch."""
    seen: dict[str, list[Any]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, output: seen.setdefault(name, []).append(given[0].flatten(0, -2))

    named = [(name, module) for name, module in model.named_modules() if name.endswith(suffix)]
    hooks = [module.register_forward_hook(keep(name)) for name, module in named]
    with torch.inference_mode():
        for ids in ROWS:
            model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [torch.cat(parts).double().numpy() for parts in seen.values()]


def quantizable(file: Path) -> set[str]:
    """Names of the matrices that llama.cpp's quantizer weighs, but for the embedding and the output."""
    names = {tensor.name for tensor in GGUFReader(file).tensors if len(tensor.shape) > 1}
    return {name for name in names if name.startswith("blk.") and "norm" not in name and "ffn_gate_inp" not in name}


PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "close"),
    [("llama", CLOSE), ("qwen2", CLOSE), ("gemma3_text", BY_TABLE)],
)
def test_sums_are_those_of_a_plain_computation_for_every_matrix(
    model_type: str, close: dict[str, float], make: Make
) -> None:
    model, file = make(model_type, **OWN.get(model_type, {}))
    told: list[tuple[float, float | None]] = []
    sums = collect(file, ROWS, 1, lambda done, total: told.append((done, total)))
    assert told == [(7, 19), (18, 19), (19, 19)]
    assert set(sums) == quantizable(file) and len(sums) == 14
    for part, ours in PARTS.items():
        for layer, given in enumerate(inputs_of(model, part)):
            found = sums[f"blk.{layer}.{ours}.weight"]
            assert found.counts.tolist() == [19]
            np.testing.assert_allclose(found.squares[0], np.square(given).sum(0), **close)


def test_experts_have_sums_and_counts_of_their_own(make: Make) -> None:
    model, file = make("qwen3_moe", **EXPERTS)
    sums = collect(file, ROWS, 1, lambda done, total: None)
    assert quantizable(file) <= set(sums)
    for layer, given in enumerate(inputs_of(model, ".mlp")):
        router = model.model.layers[layer].mlp.gate.weight.detach().double().numpy()
        chosen = np.argsort(given @ router.T)[:, -EXPERTS["num_experts_per_tok"] :]
        squares, counts = np.zeros((4, SMALL["hidden_size"])), np.zeros(4)
        for row, experts in zip(given, chosen.tolist(), strict=True):
            for expert in experts:
                squares[expert] += row**2
                counts[expert] += 1
        for part in ("ffn_gate_exps", "ffn_up_exps"):
            found = sums[f"blk.{layer}.{part}.weight"]
            assert found.counts.tolist() == counts.tolist()
            np.testing.assert_allclose(found.squares, squares, **CLOSE)
        down = sums[f"blk.{layer}.ffn_down_exps.weight"]
        assert down.counts.tolist() == counts.tolist() and down.squares.shape == (4, 32)


def test_a_library_with_other_tensors_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [field for field in activations._Tensor._fields_ if field[0] != "flags"]
    fields.insert(6, ("flags", activations.ctypes.c_int32 * 3))
    other = type("_Tensor", (activations.ctypes.Structure,), {"_fields_": fields})
    monkeypatch.setattr(activations, "_Tensor", other)
    with pytest.raises(StudioError, match="lays out tensors in an unknown way"):
        Collector()


def test_an_error_while_llama_cpp_computes_is_not_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = make("llama")

    def broken(*_: Any) -> Any:
        raise MemoryError("no room for the sums")

    monkeypatch.setattr(Collector, "_product_sums", broken)
    with pytest.raises(MemoryError, match="no room"):
        collect(file, ROWS, 1, lambda done, total: None)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(StudioError, match="cannot load"):
        collect(tmp_path / "x.gguf", ROWS, 1, lambda done, total: None)
