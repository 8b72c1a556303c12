"""Offloaded activations: the same losses and weights, and nothing of a block stays but its input, elsewhere.

Without a GPU `save_on_cpu` copies all the same, from one place of the memory to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import save_on_cpu
from transformers import modeling_utils

from studio.models.inspect.shape import ModelShape
from studio.models.plan.memory import Load, offloaded_bytes
from studio.settings import Settings
from tests.parity.made import Made, demo_rows, logged, make_trainer, trained_weights, write_rows
from tests.support.everyday import everyday

FILES = {"sft": "train.jsonl", "pretrain": "text_train.jsonl", "grpo": "sums_train.jsonl", "ppo": "sums_train.jsonl"}
WRITTEN = {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8}
OPTIONS = {"grpo": {**WRITTEN, "num_generations": 2}, "ppo": {**WRITTEN, "ppo_epochs": 2}}


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """What is kept elsewhere."""
    kept: list[torch.Tensor] = []

    class Watched(save_on_cpu):
        def __init__(self, pin_memory: bool, device_type: str) -> None:
            super().__init__(pin_memory)  # a CPU's memory cannot be pinned
            pack = self.pack_hook

            def watched(tensor: torch.Tensor) -> Any:
                packed = pack(tensor)
                assert packed[1].data_ptr() != tensor.data_ptr(), "it was not copied"
                kept.append(packed[1])
                return packed

            self.pack_hook = watched

    monkeypatch.setattr(modeling_utils, "save_on_cpu", Watched)
    yield kept


def made(settings: Settings, tiny: Path, folder: Path, method: str, tuning: str, **training: Any) -> Made:
    folder.mkdir()
    rows = write_rows(folder / "rows.jsonl", demo_rows(FILES.get(method, "pairs_train.jsonl"), 8))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0},
        "method": {"name": method, **OPTIONS.get(method, {})},
        "tuning": {"name": tuning, **({} if tuning == "full" else {"rank": 4})},
        "training": {"max_steps": 3, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, **training},
    }
    return make_trainer(raw, tiny, folder / "out", settings)


@pytest.mark.parametrize(
    "case",
    everyday(
        [*(f"{method} lora" for method in ("sft", "pretrain", "dpo", "orpo", "kto", "reward", "grpo", "ppo")),
         "sft full", "sft dora", "sft qlora", "dpo full"],
        "sft lora", "dpo full", "ppo lora",
    ),
)  # fmt: skip
def test_nothing_is_learned_otherwise(settings, tiny, tmp_path, moved, case: str) -> None:
    method, tuning = case.split()
    kept = made(settings, tiny, tmp_path / "kept", method, tuning, activation_checkpointing=True)
    kept.trainer.train()
    assert not moved and not kept.setup.plan.activation_offloading
    away = made(settings, tiny, tmp_path / "away", method, tuning, activation_offloading=True)
    away.trainer.train()
    assert moved and away.setup.plan.activation_offloading and away.setup.plan.activation_checkpointing
    assert logged(away.trainer) == logged(kept.trainer) and len(logged(kept.trainer)) == 3
    layers = ModelShape.from_folder(tiny).layers
    assert len(moved) % layers == 0 and len(moved) >= 3 * layers, "in every step, after answers were written, too"
    others = trained_weights(away.trainer)
    assert all(torch.equal(one, others[name]) for name, one in trained_weights(kept.trainer).items())


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_the_plan_counts_what_is_moved(settings, tiny, tmp_path, moved, kernels: str) -> None:
    one = made(
        settings, tiny, tmp_path / "run", "sft", "lora", activation_offloading=True, kernels=kernels, max_steps=1,
        batch_size=4, micro_batch_size=4,
    )  # fmt: skip
    one.trainer.train()
    shape = ModelShape.from_folder(tiny)
    tokens = max(tensor.shape[0] * tensor.shape[1] for tensor in moved)
    load = Load(
        adapter=None, dtype_bytes=4, autocast=False, optimizer="sgd", micro_batch=1, length=tokens, supervised=0,
        checkpointing=True, offloads=True,
    )  # fmt: skip
    assert len(moved) == shape.layers
    assert sum(tensor.nbytes for tensor in moved) == offloaded_bytes(shape, load)
