"""The first batch that the data worker shows is the one that the trainer takes, id for id."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.batch import epoch_order
from studio.data.worker.whole import WholeOperations
from studio.models.device.machine import device_info
from studio.models.plan.fit import grouping
from studio.settings import Settings
from studio.train.trainers.grouped import Parts
from tests.parity.made import make_trainer, write_rows
from tests.support.everyday import everyday

CHATS = [
    {
        "messages": [
            {"role": "user", "content": "Say " * (1 + n % 5)},
            {"role": "assistant", "content": "word " * (n + 1)},
        ]
    }
    for n in range(23)
]
TEXTS = [{"text": "Two and two is four. " * (1 + n)} for n in range(23)]
PAIRS = [{"prompt": f"{n}+1=", "chosen": f"{n + 1}", "rejected": f"no idea {'at all ' * (n % 4)}"} for n in range(23)]


class _TakenError(Exception):
    """Ends the training at its first batch."""


def first_batch(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `train` hands to the first training step."""
    taken: dict[str, Any] = {}

    def take(model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        taken.update(inputs.micro_batches[0] if isinstance(inputs, Parts) else inputs)
        raise _TakenError

    assert "inputs" in inspect.signature(trainer.training_step).parameters
    monkeypatch.setattr(trainer, "training_step", take)
    with pytest.raises(_TakenError):
        trainer.train()
    return taken


PADDED = ["input_ids", "labels", "attention_mask"]
PACKED = ["input_ids", "labels", "position_ids"]


@pytest.mark.parametrize("order", everyday([{"shuffle": True}, {"shuffle": False}], {"shuffle": True}))
@pytest.mark.parametrize(
    ("method", "rows", "names", "packing"),
    [
        ("sft", CHATS, PADDED, False),
        ("sft", CHATS, PACKED, True),
        ("pretrain", TEXTS, PADDED, False),
        ("pretrain", TEXTS, PACKED, True),
        ("dpo", PAIRS, ["input_ids", "completion_mask", "attention_mask"], False),
    ],
)
def test_it_is_the_trainers(
    settings: Settings, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, rows: Any, names: Any,
    packing: bool, order: Any,
) -> None:  # fmt: skip
    data = {
        "train": [{"path": str(write_rows(tmp_path / "rows.jsonl", rows))}], "validation": 0.2, "max_length": 150,
        "truncation": "cut", **order,
    }  # fmt: skip
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"}, "data": data, "method": {"name": method},
        "training": {"seed": 7, "batch_size": 8, "micro_batch_size": 4, "epochs": 1, "padding_free": packing},
    }  # fmt: skip
    trainer = make_trainer(raw, tiny, tmp_path / "out", settings).trainer
    real = first_batch(trainer, monkeypatch)
    args = {
        "data": data,
        "method": {"name": method},
        "model": str(tiny),
        "seed": 7,
        "micro_batch": 4,
        "packing": packing,
        **grouping(build(RunConfig, raw), device_info(settings)),
    }
    shown = WholeOperations(settings).run("batch", args, lambda *told: None)
    assert shown["exact"]
    for name in names:
        assert shown["arrays"][name] == real[name].tolist()
        assert shown["shapes"][name] == list(real[name].shape)
    if not packing:
        assert any(0 in mask for mask in shown["arrays"]["attention_mask"]), "something is padded"
    assert len(shown["rows"]) == 4
    assert len(shown["texts"]) == len(shown["arrays"]["input_ids"])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000, 50_001])
def test_the_order_is_that_of_torch(count: int) -> None:
    for seed in (0, 42, 2**32 - 1):
        generator = torch.Generator().manual_seed(seed)
        assert epoch_order(count, seed) == torch.randperm(count, generator=generator).tolist()


def test_other_methods_show_the_shape(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    operations = WholeOperations(settings)
    pairs = {"train": [{"path": str(write_rows(tmp_path / "rows.jsonl", PAIRS))}], "validation": 0}
    for method, many in (("orpo", 8), ("reward", 8), ("kto", 4), ("grpo", 4)):
        rows = [{"prompt": row["prompt"]} for row in PAIRS] if method == "grpo" else PAIRS
        data = {**pairs, "train": [{"path": str(write_rows(tmp_path / f"{method}.jsonl", rows))}]}
        args = {"data": data, "method": {"name": method}, "model": str(tiny), "micro_batch": 4}
        shown = operations.run("batch", args, lambda *told: None)
        assert (shown["exact"], shown["arrays"]) == (False, None)
        assert shown["shapes"]["input_ids"][0] == many
