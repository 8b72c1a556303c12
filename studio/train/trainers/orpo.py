"""TRL's ORPOTrainer, and CPOTrainer for simpo and cpo, on our tokens.

Both come from TRL's older code: their collator wants input ids, attention mask and labels of each answer, with the
prompt in front and not counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from datasets import Dataset
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.data.prepare.units import Pair
from studio.train.loop.counting import Counting, finish
from studio.train.setup import Setup, common_arguments, trainer_parts
from studio.train.trainers.columns import token_dataset

# CPOTrainer's options for the losses that it computes.
_CONTRASTIVE: dict[str, dict[str, Any]] = {
    "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0},
    "cpo": {"loss_type": "sigmoid", "cpo_alpha": 1.0},
}


class OddsRatioTrainer(Counting, ORPOTrainer):
    """ORPO on token ids."""


class ContrastiveTrainer(Counting, CPOTrainer):
    """SimPO and CPO on token ids."""


class _Tokenized(Dataset):
    """Rows that are ready: the trainers' own steps of preparing them change nothing."""

    def map(self, *args: Any, **kwargs: Any) -> _Tokenized:
        """Return the rows as they are."""
        return self


def build(setup: Setup) -> OddsRatioTrainer | ContrastiveTrainer:
    """Put model, rows and arguments together."""
    method = setup.config.method
    # Rows are within data.max_length already; these trainers ask for a limit all the same.
    common = {**common_arguments(setup), "beta": setup.beta, "max_length": setup.config.data.limit}
    common["remove_unused_columns"] = False
    loss = _CONTRASTIVE.get(method.kind.loss(method))
    if loss is None:
        arguments: Any = ORPOConfig(**common)
        kind: Any = OddsRatioTrainer
    else:
        arguments, kind = CPOConfig(**common, **loss, simpo_gamma=method.simpo_gamma), ContrastiveTrainer
    trainer: OddsRatioTrainer | ContrastiveTrainer = kind(args=arguments, **trainer_parts(setup, _dataset))
    return finish(trainer, setup)


def _dataset(rows: list[Pair]) -> _Tokenized:
    columns: dict[str, Iterable[list[int]]] = {"prompt_input_ids": map(attrgetter("prompt_ids"), rows)}
    for name in ("chosen", "rejected"):
        columns |= _answer_columns(name, rows)
    return _Tokenized(token_dataset(None, **columns).data)


def _answer_columns(name: str, rows: list[Pair]) -> dict[str, Iterable[list[int]]]:
    answer = attrgetter(f"{name}_ids")
    return {
        f"{name}_input_ids": (row.prompt_ids + answer(row) for row in rows),
        f"{name}_attention_mask": ([1] * (len(row.prompt_ids) + len(answer(row))) for row in rows),
        f"{name}_labels": ([-100] * len(row.prompt_ids) + answer(row) for row in rows),
    }
