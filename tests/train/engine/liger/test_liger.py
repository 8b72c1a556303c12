"""Liger's kernels are put where they give what a model's own layers give, and taken back.

`make test-liger`: Liger and Triton have an environment of their own, where Triton's interpreter stands in for a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from studio.kernels.recognized import gated_mlps
from studio.train.engine import liger
from tests.train.engine.test_fused import SIZES, adapted

PYTHON = os.environ.get("STUDIO_LIGER_PYTHON", "")
SCRIPT = Path(__file__).with_name("interpreted.py")
ROOT = Path(__file__).parents[4]
# Five norms in two layers, and two more in each where queries and keys have some.
REPLACED = {
    "llama": "5 norms, 2 gates, rotary positions", "qwen3": "9 norms, 2 gates, rotary positions",
    "gemma": "5 norms, 2 gates, rotary positions", "phi3": "5 norms, 2 gates, rotary positions",
    "glm": "5 norms, 2 gates",  # it turns neighbours, not halves
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [PYTHON, str(SCRIPT), *REPLACED], capture_output=True, text=True, timeout=1100, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="make test-liger")
@pytest.mark.parametrize("family", REPLACED)
def test_a_family_gives_the_same_with_them_and_after_them(family: str, found: dict[str, dict[str, Any]]) -> None:
    assert found[family]["line"] == f"Liger's kernels: {REPLACED[family]}"
    outputs, gradients = found[family]["far"]
    assert 0 < outputs < 1e-4 and 0 < gradients < 1e-3
    assert found[family]["back"] == [0, 0]


def test_a_run_says_that_they_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    line = liger.fuse(SimpleNamespace(), SimpleNamespace()).line()  # type: ignore[arg-type]
    assert line == "Liger's kernels: none (they are not installed; studio doctor says how)"


def test_gates_between_layers_of_4_bits_are_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES | {"hidden_size": 64, "intermediate_size": 128})).save_pretrained(tmp_path)
    kind = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=kind, dtype=torch.bfloat16)

    def gate(first: torch.Tensor, second: torch.Tensor, gelu: bool) -> torch.Tensor:
        return (functional.gelu(first, approximate="tanh") if gelu else functional.silu(first)) * second

    for model in (base, adapted(base)):
        assert [type(one).__name__ for one, _, _ in gated_mlps(model, gate, packed=True)] == ["LlamaMLP"] * 2
        assert list(gated_mlps(model, gate)) == []
