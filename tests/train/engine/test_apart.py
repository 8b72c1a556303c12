"""Examples that share a row see nothing of each other, or the run is refused; windows count also where masks have them.

Which models mix examples was found by asking each: convolutions and linear attention go on from one to the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.kernels.calls import Kernels
from studio.settings import Settings
from studio.train.engine import fused
from studio.train.engine.comparing import mixed
from studio.train.worker import train
from tests.parity.made import demo_rows, write_rows
from tests.train.engine.test_fused import SIZES, adapted

STATES: dict[str, dict[str, Any]] = {
    "lfm2": {
        "layer_types": ["conv", "full_attention"], "block_dim": 32, "block_ff_dim": 64, "conv_dim": 32,
        "block_auto_adjust_ff_dim": False,
    },
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"], "layers_block_type": ["mamba", "attention"], "mamba_n_heads": 8,
        "mamba_d_head": 8, "mamba_expand": 2, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16,
        "num_local_experts": 0, "shared_intermediate_size": 64, "position_embedding_type": "rope",
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 8, "n_groups": 1, "chunk_size": 16},
}  # fmt: skip
# GPT-BigCode does not tell its attention where examples begin; its own mask has them apart.
APART: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen3": {"head_dim": 8}, "gemma3_text": {"head_dim": 8, "sliding_window": 16},
    "mistral": {"sliding_window": 16}, "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64},
}  # fmt: skip
_TOLD = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def model_of(family: str, **options: Any) -> Any:
    """A random model whose tokens depend on each other as much as a trained one's."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | options)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape) / weight.shape[-1] ** 0.5 * 1.5)
    return model


def together(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    made = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    return {name: made[name] for name in _TOLD}


@pytest.mark.parametrize("family", APART)
def test_examples_are_apart(kernels: Kernels, family: str) -> None:
    model = adapted(model_of(family, **APART[family]))
    assert mixed(model, together) < 1e-5
    done = fused.attach(
        model, kernels, attention_is_free=True, autocast=False, mixes=lambda: mixed(model, together)
    )  # fmt: skip
    assert done.reason == ""
    assert done.segments is (family != "gpt_bigcode")
    assert mixed(model, together) < 1e-4


def test_without_rows_of_several_examples_attention_stays_the_engines(kernels: Kernels) -> None:
    model = adapted(model_of("gpt_bigcode", **APART["gpt_bigcode"]))
    assert fused.attach(model, kernels, attention_is_free=True, autocast=False).segments


@pytest.mark.parametrize("family", STATES)
def test_what_mixes_them_is_seen(family: str) -> None:
    assert mixed(model_of(family, **STATES[family]), together) > 0.15


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_run_that_would_mix_them_is_refused(settings: Settings, tiny: Path, tmp_path: Path, kernels: str) -> None:
    base, sizes = tmp_path / "lfm2", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(base)
    model_of("lfm2", **STATES["lfm2"], **sizes, vocab_size=len(tokenizer)).save_pretrained(base)
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 8))
    raw = {
        "model": {"path": str(base), "dtype": "float32"}, "data": {"train": [{"path": str(rows)}], "validation": 0},
        "training": {"max_steps": 1, "batch_size": 4, "padding_free": True, "kernels": kernels},
    }  # fmt: skip
    job = create_job(settings.jobs, "train", "mixed", build(RunConfig, raw).model_dump(mode="json"))
    with pytest.raises(InputError, match=r"carry what they have read from one example into the next.*Turn it off"):
        train(JobContext(job, settings))


def long_rows(model: Any) -> torch.Tensor:
    """Logits of a padded batch whose rows are longer than the window."""
    ids, mask = torch.arange(300).reshape(2, 150) * 7 % 97, torch.ones(2, 150, dtype=torch.long)
    mask[1, 140:] = 0
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
    return logits


@pytest.mark.parametrize(
    ("family", "ours"), [("phimoe", False), ("mistral", True), ("qwen2", True), ("gemma3_text", True)]
)
def test_a_window_that_only_the_mask_has_is_kept(kernels: Kernels, family: str, ours: bool) -> None:
    options: dict[str, Any] = {"sliding_window": 100}
    if family == "phimoe":
        options |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    if family == "qwen2":
        options |= {"use_sliding_window": True, "max_window_layers": 0}
    model = model_of(family, **options).eval()
    before = long_rows(model)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.segments is ours
    torch.testing.assert_close(long_rows(model), before, rtol=1e-4, atol=1e-4)
