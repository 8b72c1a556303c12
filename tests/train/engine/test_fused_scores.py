"""A model with one score for a row finds the row's end by its padding; the engine's layers give the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from studio.kernels.calls import Kernels
from studio.settings import Settings
from studio.train.engine import fused
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows
from tests.train.engine.test_fused import FAMILIES, SIZES, learned

PADDING = 3


def scores(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and gradients of three rows that end at different places."""
    ids = torch.arange(120).reshape(3, 40) * 7 % 90 + 4
    mask = torch.ones_like(ids)
    for row, end in enumerate((30, 13, 40)):
        ids[row, end:], mask[row, end:] = PADDING, 0
    model.zero_grad()
    found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    (found * torch.tensor([[1.0], [-2.0], [3.0]])).sum().backward()
    gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
    return found.detach(), torch.cat(gradients)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "phi3", "mistral"])
@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_a_reward_model_gives_the_same_with_them(kernels: Kernels, family: str, adapter: bool) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | FAMILIES[family] | {"pad_token_id": PADDING, "num_labels": 1}))
    model = AutoModelForSequenceClassification.from_config(config)
    if adapter:
        lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS")
        model = learned(get_peft_model(model, lora)).train()
    before = scores(model)
    decoder = model.get_base_model().model if adapter else model.model
    seen: list[int] = []
    decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2].numel()))
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.reason == "" and done.segments is done.unpadded is (family != "gemma2")  # whose scores are capped
    seen.clear()
    for theirs, ours in zip(before, scores(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert seen == [120 if family == "gemma2" else 30 + 13 + 40]


def test_a_job_trains_with_them_and_learns_the_same(
    settings: Settings, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 8))
    seen = {}
    for kernels in ("off", "auto"):
        context = job_for(
            settings, tiny, rows, method={"name": "reward"}, tuning={"name": "lora", "rank": 4},
            data={"validation": 0, "max_length": 256}, training={"max_steps": 2, "kernels": kernels},
        )  # fmt: skip
        train(context)
        assert ("attention, no padding, shared prefixes\n" in capfd.readouterr().out) == (kernels == "auto")
        seen[kernels] = reported(context)
    assert len(seen["off"]) == 2 and seen["auto"] == pytest.approx(seen["off"], rel=1e-5)
