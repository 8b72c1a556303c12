"""Examples in one row without padding: loss and gradients of padded ones, since each sees itself only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from studio.settings import Settings
from tests.parity.made import demo_rows, logged, make_trainer, trained_weights, write_rows
from tests.support.everyday import everyday

SAME = 1e-5


def made(settings: Settings, folder: Path, tmp_path: Path, packing: bool, **sections: Any) -> Any:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    raw: dict[str, Any] = {
        "model": {"path": str(folder), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.25, "max_length": 256},
        "tuning": {"name": "lora", "rank": 4},
        "training": {"max_steps": 3, "batch_size": 6, "micro_batch_size": 3, "learning_rate": 1e-3,
                     "padding_free": packing, "eval_steps": 1},
    }  # fmt: skip
    for name, values in sections.items():
        raw[name] = raw.get(name, {}) | values
    return make_trainer(raw, folder, tmp_path / f"out-{packing}", settings).trainer


def gradients(trainer: Any, engine_loss: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first three examples."""
    trainer.engine_loss = engine_loss
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    assert ("attention_mask" in batch) is not trainer.args.padding_free
    trainer.model.train()
    items = (batch["labels"] != -100).sum()
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=items)
    loss.backward()
    found = {name: one.grad.clone() for name, one in trainer.model.named_parameters() if one.grad is not None}
    trainer.model.zero_grad()
    return float(loss.detach()), found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("engine_loss", [True, False], ids=["own loss", "TRL's loss"])
def test_loss_and_gradients_are_those_of_padded_rows(
    settings: Settings, tiny: Path, tmp_path: Path, attention: str, engine_loss: bool
) -> None:
    both = []
    for packing in (False, True):
        trainer = made(settings, tiny, tmp_path, packing, model={"attention": attention}, tuning={"name": "full"})
        both.append(gradients(trainer, engine_loss))
    (padded, before), (packed, after) = both
    assert packed == pytest.approx(padded, rel=SAME)
    assert before.keys() == after.keys() and len(before) > 10
    for name, gradient in before.items():
        assert float((gradient - after[name]).abs().max()) <= SAME * max(1.0, float(gradient.abs().max())), name


@pytest.mark.parametrize("method", everyday(["sft", "pretrain"], "sft"))
def test_a_run_reports_the_same_numbers(settings: Settings, tiny: Path, tmp_path: Path, method: str) -> None:
    runs = []
    for packing in (False, True):
        trainer = made(settings, tiny, tmp_path, packing, method={"name": method})
        trainer.train()
        runs.append((trainer, trained_weights(trainer)))
    (padded, before), (packed, after) = runs
    assert logged(packed) == pytest.approx(logged(padded), rel=SAME)
    assert logged(packed, "eval_loss") == pytest.approx(logged(padded, "eval_loss"), rel=SAME)
    assert (packed.tokens_seen, packed.supervised_seen) == (padded.tokens_seen, padded.supervised_seen)
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)


@pytest.mark.long
def test_the_real_model(settings: Settings, model_path: Path, tmp_path: Path) -> None:
    losses = []
    for packing in (False, True):
        trainer = made(settings, model_path, tmp_path, packing)
        loss, found = gradients(trainer, True)
        losses.append((loss, torch.cat([one.flatten() for one in found.values()])))
    (padded, before), (packed, after) = losses
    assert packed == pytest.approx(padded, rel=SAME)
    assert float((before - after).norm() / before.norm()) <= 1e-4
