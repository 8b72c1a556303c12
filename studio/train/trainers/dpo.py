"""TRL's DPOTrainer on our tokens. The rows arrive as `prompt_ids`, `chosen_ids` and `rejected_ids`."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from studio.data.prepare.units import Pair
from studio.train.load.reference import keep_start, reference_model
from studio.train.loop.counting import Counting, finish
from studio.train.setup import Setup, common_arguments, trainer_parts
from studio.train.trainers.columns import token_dataset
from studio.train.trainers.grouped import GroupedPairs
from studio.train.trainers.sharded import Sharded, sharding_arguments


class PreferenceTrainer(GroupedPairs, Counting, Sharded, DPOTrainer):
    """DPOTrainer that takes token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def build(setup: Setup) -> PreferenceTrainer:
    """Put model, reference, rows and arguments together."""
    method = setup.config.method
    arguments = DPOConfig(
        **common_arguments(setup) | sharding_arguments(setup),
        beta=setup.beta,
        loss_type=list(method.dpo_loss),
        loss_weights=method.dpo_loss_weights,
        label_smoothing=method.label_smoothing,
        max_length=None,
    )
    trainer = PreferenceTrainer(ref_model=reference_model(setup), args=arguments, **trainer_parts(setup, pairs))
    keep_start(trainer, setup)
    return finish(trainer, setup)


def pairs(rows: list[Pair]) -> Dataset:
    """Return pairs as TRL's collator takes them."""
    return token_dataset(
        prompt_ids=(row.prompt_ids for row in rows),
        chosen_ids=(row.chosen_ids for row in rows),
        rejected_ids=(row.rejected_ids for row in rows),
    )
