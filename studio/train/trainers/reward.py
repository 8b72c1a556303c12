"""TRL's RewardTrainer on our tokens: `chosen_ids` and `rejected_ids`, the prompt in front of each."""

from __future__ import annotations

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from studio.data.prepare.units import Pair
from studio.train.loop.counting import Counting, finish
from studio.train.setup import Setup, common_arguments, trainer_parts
from studio.train.trainers.columns import token_dataset
from studio.train.trainers.grouped import GroupedPairs
from studio.train.trainers.sharded import Sharded, sharding_arguments


class ScoreTrainer(GroupedPairs, Counting, Sharded, RewardTrainer):
    """RewardTrainer that counts tokens."""


def build(setup: Setup) -> ScoreTrainer:
    """Put model, rows and arguments together; the model has one score for a sequence."""
    arguments = RewardConfig(
        **common_arguments(setup) | sharding_arguments(setup),
        max_length=None,  # TRL would drop longer pairs
        center_rewards_coefficient=setup.config.method.center_rewards_coefficient or None,
    )
    trainer = ScoreTrainer(args=arguments, **trainer_parts(setup, _dataset))
    return finish(trainer, setup)


def _dataset(rows: list[Pair]) -> Dataset:
    return token_dataset(
        chosen_ids=(row.prompt_ids + row.chosen_ids for row in rows),
        rejected_ids=(row.prompt_ids + row.rejected_ids for row in rows),
    )
