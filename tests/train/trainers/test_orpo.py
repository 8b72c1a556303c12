"""What TRL's older trainers of pairs change about a model that is given to them."""

from __future__ import annotations

import pytest
import torch

from studio.kernels.recognized import base_of
from tests.parity.made import demo_rows, make_trainer, write_rows


@pytest.mark.parametrize("method", ["orpo", "simpo"])
def test_weights_beside_quantised_ones_stay_as_they_were_loaded(settings, tiny, tmp_path, method: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 8))
    raw = {
        "model": {"path": str(tiny), "dtype": "bfloat16"},
        "data": {"train": [{"path": str(rows)}], "validation": 0},
        "method": {"name": method},
        "tuning": {"name": "qlora", "rank": 4},
        "training": {"max_steps": 1, "batch_size": 4},
    }
    trainer = make_trainer(raw, tiny, tmp_path / "out", settings).trainer
    frozen = [one for one in trainer.model.parameters() if not one.requires_grad and one.is_floating_point()]
    assert {one.dtype for one in frozen} == {torch.bfloat16}
    assert {one.dtype for one in trainer.model.parameters() if one.requires_grad} == {torch.float32}
    seen = []
    layer = base_of(trainer.model).model.layers[1].self_attn.q_proj
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    trainer.train()
    assert set(seen) == {torch.bfloat16}
