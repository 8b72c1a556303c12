"""KTO's own number: how often a good answer of the validation beats a bad one, against plain transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio.methods.preference import Ranked, good_above_bad
from studio.settings import Settings
from tests.parity.made import demo_rows, make_trainer, write_rows
from tests.support.everyday import everyday

A, B = (1, 2), (3,)


@pytest.mark.parametrize(
    ("seen", "share"),
    [
        ([Ranked(A, True, 1.0), Ranked(A, False, 0.0)], 1.0),
        ([Ranked(A, True, 0.0), Ranked(A, False, 1.0)], 0.0),
        ([Ranked(A, True, 0.0), Ranked(A, False, 0.0)], 0.5),
        # Only answers to the same prompt are compared, however large the rewards of another one are.
        ([Ranked(A, True, 1.0), Ranked(A, False, 0.0), Ranked(B, True, -9.0), Ranked(B, False, -8.0)], 0.5),
        # No prompt has both kinds: all are compared.
        ([Ranked(A, True, 1.0), Ranked(B, False, 0.0), Ranked((4,), False, 2.0)], 0.5),
        ([Ranked(A, True, 1.0)], None),
    ],
)
def test_share(seen: list[Ranked], share: float | None) -> None:
    assert good_above_bad(seen) == share


@pytest.mark.parametrize("tuning", everyday(["lora", "full"], "lora"))
def test_the_number_is_that_of_plain_transformers(settings: Settings, tiny: Path, tmp_path: Path, tuning: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 16))
    held_out = write_rows(tmp_path / "held_out.jsonl", demo_rows("pairs_test.jsonl", 10))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": str(held_out), "max_length": 256},
        "method": {"name": "kto"},
        "tuning": {"name": tuning},
        "training": {"max_steps": 6, "batch_size": 8, "learning_rate": 3e-3, "eval_steps": 3},
    }
    made = make_trainer(raw, tiny, tmp_path / "out", settings)
    made.trainer.train()
    told = [entry["eval_rewards/accuracies"] for entry in made.trainer.state.log_history if "eval_loss" in entry]
    assert len(told) == 3
    assert told[0] == 0.5  # nothing has moved yet
    made.trainer.save_model(str(tmp_path / "model"))

    base = AutoModelForCausalLM.from_pretrained(tiny)
    other = AutoModelForCausalLM.from_pretrained(tiny if tuning == "lora" else tmp_path / "model")
    trained = PeftModel.from_pretrained(other, tmp_path / "model") if tuning == "lora" else other
    rewards: dict[tuple[int, ...], dict[bool, float]] = {}
    for row in made.setup.validation:
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        before, after = (
            model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[len(row.prompt_ids) - 1 :].sum()
            for model in (base, trained)
        )
        rewards.setdefault(tuple(row.prompt_ids), {})[row.label] = float((after - before).detach())
    assert len(rewards) == 10
    assert told[-1] == sum(pair[True] > pair[False] for pair in rewards.values()) / 10
