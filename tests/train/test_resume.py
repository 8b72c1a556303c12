"""A run that was stopped half-way and resumed by a new trainer ends where the uninterrupted one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from studio.methods import METHODS
from studio.settings import Settings
from studio.tunings import TUNINGS
from tests.parity.made import Made, demo_rows, logged, make_trainer, trained_weights, write_rows

STEPS = 6
HALF = 3
# The same numbers in the same order; what is left is what float32 loses on its way through a file: nothing.
TOLERANCE = 1e-6
FILES = {"sft": "train.jsonl", "pretrain": "text_train.jsonl", "ppo": "sums_train.jsonl", "grpo": "sums_train.jsonl"}


class Stop(TrainerCallback):
    """Stops as the studio's own callback does when a person asks for it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == HALF:
            control.should_save = control.should_training_stop = True
        return control


def made_run(settings: Settings, tiny: Path, folder: Path, method: str, tuning: str, stops: bool = False) -> Made:
    rows = write_rows(folder.parent / "rows.jsonl", demo_rows(FILES.get(method, "pairs_train.jsonl"), 12))
    options: dict[str, Any] = {"name": method}
    if method in ("ppo", "grpo"):
        options |= {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8}
    if method == "grpo":
        options["num_generations"] = 2
    if method == "ppo":
        options["ppo_epochs"] = 2  # so that the stop is between two updates on the same answers
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 512},
        "method": options,
        # Dropout draws random numbers in every step, so their state must be kept too.
        "tuning": {"name": tuning, "rank": 8, "dropout": 0.0 if tuning == "full" else 0.1},
        "training": {"max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "save_steps": 1000},
    }
    return make_trainer(raw, tiny, folder, settings, [Stop()] if stops else [])


EVERY_DAY = [("sft", "lora"), ("grpo", "lora")]
CELLS = [
    pytest.param(method, tuning, marks=[] if (method, tuning) in EVERY_DAY else pytest.mark.matrix)
    for method in METHODS
    for tuning in TUNINGS
]


@pytest.mark.parametrize(("method", "tuning"), CELLS)
def test_a_resumed_run_ends_where_the_whole_one_does(settings, tiny, tmp_path, method: str, tuning: str) -> None:
    whole = made_run(settings, tiny, tmp_path / "whole", method, tuning).trainer
    before = trained_weights(whole)
    whole.train()
    stopped = made_run(settings, tiny, tmp_path / "half", method, tuning, stops=True).trainer
    stopped.train()
    assert stopped.state.global_step == HALF
    checkpoint = get_last_checkpoint(str(tmp_path / "half"))
    assert checkpoint is not None and checkpoint.endswith(f"-{HALF}")
    resumed = made_run(settings, tiny, tmp_path / "half", method, tuning).trainer
    resumed.train(resume_from_checkpoint=checkpoint)
    assert resumed.state.global_step == STEPS
    name = "reward" if method in ("ppo", "grpo") else "loss"
    assert logged(resumed, name) == pytest.approx(logged(whole, name), abs=TOLERANCE)
    after, expected, half = trained_weights(resumed), trained_weights(whole), trained_weights(stopped)
    assert after.keys() == expected.keys()
    moved = 0.0
    for key, weight in expected.items():
        assert float((after[key] - weight).abs().max()) <= TOLERANCE, key
        moved = max(moved, float((weight - half[key]).abs().max()))
    assert moved > 100 * TOLERANCE, "the second half learned something"
    assert any(not torch.equal(weight, before[key]) for key, weight in expected.items())


@pytest.mark.parametrize(
    "method", ["sft", pytest.param("dpo", marks=pytest.mark.long), pytest.param("ppo", marks=pytest.mark.long)]
)
def test_nothing_is_trained_after_the_last_step(settings, tiny, tmp_path, method: str) -> None:
    """As where a run was killed while it saved its model; its last step lies within an epoch, its rate is constant."""

    def made() -> Any:
        rows = write_rows(tmp_path / "rows.jsonl", demo_rows(FILES.get(method, "pairs_train.jsonl"), 12))
        raw = {
            "model": {"path": str(tiny), "dtype": "float32"},
            "data": {"train": [{"path": str(rows)}], "validation": 0},
            "method": {
                "name": method,
                **({"rewards": ["length"], "max_completion_length": 8} if method == "ppo" else {}),
            },
            "training": {
                "max_steps": 4,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "scheduler": "constant",
                "save_steps": 4,
            },
        }
        return make_trainer(raw, tiny, tmp_path / "run", settings).trainer

    whole = made()
    whole.train()
    again = made()
    again.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "run")))
    assert again.state.global_step == 4 == whole.state.global_step
    expected = trained_weights(whole)
    assert all(torch.equal(weight, expected[name]) for name, weight in trained_weights(again).items())
