"""TRL's GRPOTrainer and RLOOTrainer with the studio's rewards; the answers they write are shown as they come."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from studio.data.prepare.units import Prompt
from studio.train.load.reference import keep_start, reference_options
from studio.train.loop.counting import finish
from studio.train.rewards.functions import Reward, make_rewards
from studio.train.setup import Setup, common_arguments
from studio.train.trainers.online import Online, last_text
from studio.train.trainers.rollouts import scored
from studio.train.trainers.sharded import keep_sharded, sharding_arguments


class GroupTrainer(Online, GRPOTrainer):
    """GRPO with the studio's rewards."""


class LeaveOneOutTrainer(Online, RLOOTrainer):
    """RLOO with the studio's rewards."""

    with_logps = False


def build(setup: Setup) -> GroupTrainer | LeaveOneOutTrainer:
    """Put model, prompts, rewards and arguments together."""
    method = setup.config.method
    rewards = make_rewards(setup, [*setup.train, *setup.validation])
    common = {
        **common_arguments(setup),
        **sharding_arguments(setup),
        "beta": setup.beta,
        "num_generations": method.num_generations,
        "num_generations_eval": 1,
        "max_completion_length": method.max_completion_length,
        "temperature": method.temperature,
        "epsilon": method.clip_range,
        "reward_weights": method.reward_weights,
        "shuffle_dataset": setup.config.data.shuffle,
        "log_completions": False,
    }
    if setup.beta and not setup.config.tuning.kind.adapter:
        common["model_init_kwargs"] = reference_options(setup)  # TRL reads the reference itself
    del common["train_sampling_strategy"]  # groups have a sampler of their own
    if method.grpo_algorithm == "rloo":
        arguments: Any = RLOOConfig(**common)
        kind: Any = LeaveOneOutTrainer
    else:
        arguments, kind = GRPOConfig(**common, loss_type=method.grpo_loss), GroupTrainer
    if setup.dealt:  # or TRL would take a batch for each rank
        arguments.generation_batch_size = setup.config.training.batch_size
    trainer: GroupTrainer | LeaveOneOutTrainer = kind(
        model=setup.model,
        reward_funcs=[_as_function(reward) for reward in rewards],
        args=arguments,
        train_dataset=_dataset(setup.train, 0),
        eval_dataset=_dataset(setup.validation, len(setup.train)) if setup.validation else None,
        processing_class=setup.tokenizer,
        peft_config=setup.peft_config,
        callbacks=setup.callbacks,
    )
    keep_sharded(trainer)
    trainer.by_token = method.grpo_algorithm == "grpo" and method.grpo_loss == "dapo"
    if setup.beta:
        keep_start(trainer, setup)
    return finish(trainer, setup)


def _as_function(reward: Reward) -> Any:
    """A reward as TRL calls it, with the texts of the answers instead of messages."""

    def score(prompts: list[Any], completions: list[Any], row: list[int], **_: Any) -> list[float | None]:
        return scored(reward, row, [last_text(one) for one in completions])

    score.__name__ = reward.name
    return score


def _dataset(rows: list[Prompt], first: int) -> Dataset:
    # The place in the list is enough: a reward looks its prompt, answer and columns up by it.
    return Dataset.from_list([{"prompt": row.prompt, "row": at} for at, row in enumerate(rows, first)])
