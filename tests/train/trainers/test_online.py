"""Prompts that fill no whole batch: every one is answered in each epoch, in as many updates as the plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trl.trainer.utils import RepeatSampler

from studio.config import RunConfig
from studio.config.load import build
from studio.models.plan.making import steps_per_epoch
from studio.settings import Settings
from studio.train.trainers.online import Epochs
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize(("prompts", "batch", "completions"), [(5, 8, 4), (3, 8, 4), (7, 8, 2), (1, 8, 2), (31, 64, 4)])
def test_every_prompt_is_answered_in_each_epoch(prompts: int, batch: int, completions: int, shuffled: bool) -> None:
    order = Epochs(range(prompts), completions, batch // completions, 1, shuffled, 42)
    places = list(order)
    assert set(places) == set(range(prompts))
    assert len(places) == len(order) and len(order) % batch == 0
    groups = [places[at : at + completions] for at in range(0, len(places), completions)]
    assert all(len(set(group)) == 1 for group in groups)
    assert [group[0] for group in groups[:prompts]] == list(dict.fromkeys(places)), "before one comes twice, all came"
    method = {"name": "grpo", "num_generations": completions}
    config = build(RunConfig, {"method": method, "training": {"batch_size": batch}})
    assert steps_per_epoch(config, prompts, batch, 1) == len(order) // batch


def test_whole_batches_come_in_trls_order() -> None:
    theirs = RepeatSampler(range(12), 4, 3, 2, True, 42)
    ours = Epochs(range(12), 4, 3, 2, True, 42)
    for _ in range(3):
        assert list(ours) == list(theirs)


@pytest.mark.parametrize("method", ["grpo", pytest.param("rloo", marks=pytest.mark.long)])
def test_a_run_makes_the_updates_of_its_plan(settings: Settings, tiny: Path, tmp_path: Path, method: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("sums_train.jsonl", 3))
    options: dict[str, Any] = {"grpo_algorithm": "rloo"} if method == "rloo" else {}
    context = job_for(
        settings, tiny, rows, data={"validation": 0}, tuning={"rank": 4}, training={"epochs": 2, "batch_size": 4},
        method={
            "name": "grpo", "num_generations": 2, "rewards": ["length"], "reward_length": 6, "max_completion_length": 6,
            **options,
        },
    )  # fmt: skip
    train(context)
    assert context.job.environment()["plan"]["steps"] == len(reported(context)) == 4
