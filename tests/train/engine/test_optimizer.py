"""Full tuning's AdamW is one fused step over all weights on a CPU, and gives what the plain one gives."""

from __future__ import annotations

from pathlib import Path

import torch

from studio.settings import Settings
from tests.parity.made import demo_rows, make_trainer, write_rows

# Float32 products and a square root in another order.
NEAR = 1e-6


def test_it_is_fused_and_gives_the_same_weights(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 4))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 256},
        "tuning": {"name": "full"},
        "training": {"max_steps": 1, "batch_size": 4, "weight_decay": 0.1},
    }
    trainer = make_trainer(raw, tiny, tmp_path / "out", settings).trainer
    fused = trainer.create_optimizer()
    assert isinstance(fused, torch.optim.AdamW) and all(group["fused"] for group in fused.param_groups)

    plain_groups = [
        group | {"params": [one.detach().clone().requires_grad_() for one in group["params"]], "fused": None}
        for group in fused.param_groups
    ]
    plain = torch.optim.AdamW(plain_groups, foreach=False)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(3):
        for mine, other in zip(fused.param_groups, plain.param_groups, strict=True):
            for one, its in zip(mine["params"], other["params"], strict=True):
                one.grad = torch.randn(one.shape, generator=drawn)
                its.grad = one.grad.clone()
        fused.step()
        plain.step()
    for mine, other in zip(fused.param_groups, plain.param_groups, strict=True):
        for one, its in zip(mine["params"], other["params"], strict=True):
            assert float((one - its).detach().abs().max()) <= NEAR * float(its.detach().abs().max())
