"""Batches and adapters at the edges: with the engine's layers the losses and weights are those without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.settings import Settings
from tests.parity.made import demo_rows, logged, make_trainer, trained_weights, write_rows

pytestmark = pytest.mark.long
Features = list[dict[str, Any]]
LONG = "one two three four five six seven eight nine ten " * 150


def _nothing_counts(features: Features, update: int) -> Features:
    """In every other micro-batch."""
    return [row | {"labels": [-100] * len(row["labels"])} for row in features] if update % 2 else features


def _one_token(features: Features, update: int) -> Features:
    """The first row of each has one token, and with the second micro-batch all rows have."""
    return [
        {name: value[:1] if isinstance(value, list) and (place == 0 or update == 1) else value
         for name, value in row.items()} for place, row in enumerate(features)
    ]  # fmt: skip


BATCHES: dict[str, Callable[[Features, int], Features]] = {"nothing counts": _nothing_counts, "one token": _one_token}
ADAPTERS: dict[str, dict[str, Any]] = {
    "two kinds of layers": {"target_modules": ["v_proj", "down_proj"]},
    "one block": {"layers_to_transform": [1], "rank": 3},
    "patterns": {"rank_pattern": {"q_proj": 1, "up_proj": 255}, "alpha_pattern": {"v_proj": 3.0}, "rank": 17},
    "whole modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
}


def trained(
    kernels: str, tiny: Path, folder: Path, settings: Settings, tuning: dict[str, Any], rows: list[dict[str, Any]],
    change: Callable[[Features, int], Features] | None = None, begin: Path | None = None, **training: Any,
) -> tuple[list[float], dict[str, torch.Tensor]]:  # fmt: skip
    """The losses of three updates, and the weights."""
    folder.mkdir()
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(write_rows(folder / "rows.jsonl", rows))}], "validation": 0,
                 "max_length": 2048, "truncation": "cut"},
        "tuning": {"name": "lora", "rank": 4} | tuning,
        "training": {"max_steps": 3, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, "kernels": kernels,
                     **training},
    }  # fmt: skip
    made = make_trainer(raw, tiny, folder / "out", settings)
    trainer = made.trainer
    if change is not None:
        collate, seen = trainer.data_collator, []

        def changed(features: Features) -> Any:
            seen.append(features)
            return collate(change(features, len(seen) - 1))

        trainer.data_collator = changed
    trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
    trainer.train(resume_from_checkpoint=None if begin is None else str(begin))
    return logged(trainer), trained_weights(trainer)


def compare(tiny: Path, tmp_path: Path, settings: Settings, *given: Any, **training: Any) -> None:
    """Three updates with the engine's layers and without."""
    plain, weights = trained("off", tiny, tmp_path / "off", settings, *given, **training)
    found, ours = trained("auto", tiny, tmp_path / "auto", settings, *given, **training)
    assert len(plain) == 3 and found == pytest.approx(plain, rel=1e-5, abs=1e-7)
    assert ours.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("padding_free", [False, True], ids=["padded", "padding-free"])
@pytest.mark.parametrize("name", BATCHES)
def test_batches(settings: Settings, tiny: Path, tmp_path: Path, name: str, padding_free: bool) -> None:
    compare(tiny, tmp_path, settings, {}, demo_rows("train.jsonl", 12), BATCHES[name], padding_free=padding_free)


@pytest.mark.parametrize("padding_free", [False, True], ids=["padded", "padding-free"])
def test_a_row_as_long_as_the_model_takes_beside_short_ones(
    settings: Settings, tiny: Path, tmp_path: Path, padding_free: bool
) -> None:
    short = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": str(n)}]} for n in range(11)
    ]
    long = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": LONG}]}  # to the limit
    compare(tiny, tmp_path, settings, {}, [long, *short], padding_free=padding_free)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(settings: Settings, tiny: Path, tmp_path: Path, name: str) -> None:
    compare(tiny, tmp_path, settings, ADAPTERS[name], demo_rows("train.jsonl", 12))


@pytest.mark.parametrize("first", ["auto", "off"])
def test_a_run_that_goes_on_with_other_kernels(settings: Settings, tiny: Path, tmp_path: Path, first: str) -> None:
    rows, second = demo_rows("train.jsonl", 12), "off" if first == "auto" else "auto"
    plain, weights = trained(first, tiny, tmp_path / "whole", settings, {}, rows)
    checkpoint = tmp_path / "whole" / "out" / "checkpoint-2"
    found, ours = trained(second, tiny, tmp_path / "rest", settings, {}, rows, begin=checkpoint)
    assert len(plain) == len(found) == 3 and found == pytest.approx(plain, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-5, msg=name)
