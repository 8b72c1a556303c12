"""TRL's GRPOTrainer and RLOOTrainer with the studio's rewards; the answers they write are shown as they come."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from studio.data.prepare.units import Prompt
from studio.train.load.reference import keep_start, reference_options
from studio.train.loop.counting import Counting, finish
from studio.train.rewards.functions import Reward, make_rewards
from studio.train.setup import Setup, common_arguments
from studio.writing.quick import quicker

SAMPLES_SHOWN = 4


class _Online(Counting):
    """Counts what was written and reports some of it."""

    def count(self, inputs: Any) -> None:
        """The prompts of a micro-batch have no tokens yet; `training_step` takes the trainer's own count."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Write answers where it is time, learn from them, and count the tokens of both."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.tokens_seen = int(self.state.num_input_tokens_seen)  # type: ignore[attr-defined]
        return loss

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Write answers as TRL does, in less time, and computed as training computes them.

        Args:
            args, kwargs: the prompts, and whatever else this version of TRL passes.
        """
        # Around all steps, so that float32 weights are rounded once for them and not for each token.
        with quicker(self.model), self.accelerator.autocast():  # type: ignore[attr-defined]
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report the answers of this step with their rewards."""
        kept: Any = self._logs  # type: ignore[attr-defined]
        names = list(kept["rewards"])
        answers = list(zip(kept["prompt"], kept["completion"], strict=True))[-SAMPLES_SHOWN:]
        first = len(kept["prompt"]) - len(answers)
        if self.model.training and answers:  # type: ignore[attr-defined]
            self.setup.on_samples(
                self.state.global_step,  # type: ignore[attr-defined]
                [
                    {
                        "prompt": last_text(prompt),
                        "text": last_text(answer),
                        "rewards": {name: kept["rewards"][name][first + i] for name in names},
                    }
                    for i, (prompt, answer) in enumerate(answers)
                ],
            )
        super().log(logs, start_time)  # type: ignore[misc]


class GroupTrainer(_Online, GRPOTrainer):
    """GRPO with the studio's rewards."""


class LeaveOneOutTrainer(_Online, RLOOTrainer):
    """RLOO with the studio's rewards."""


def build(setup: Setup) -> GroupTrainer | LeaveOneOutTrainer:
    """Put model, prompts, rewards and arguments together."""
    method = setup.config.method
    rewards = make_rewards(setup, [*setup.train, *setup.validation])
    common = {
        **common_arguments(setup),
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
    if setup.beta:
        keep_start(trainer, setup)
    return finish(trainer, setup)


def _as_function(reward: Reward) -> Any:
    """A reward as TRL calls it, with the texts of the answers instead of messages."""

    def score(prompts: list[Any], completions: list[Any], row: list[int], **_: Any) -> list[float | None]:
        return reward(row, [last_text(one) for one in completions])

    score.__name__ = reward.name
    return score


def last_text(value: Any) -> str:
    """The text of an answer or prompt, which TRL gives as messages where the prompt is a conversation."""
    return str(value[-1]["content"]) if isinstance(value, list) and value else str(value or "")


def _dataset(rows: list[Prompt], first: int) -> Dataset:
    # The place in the list is enough: a reward looks its prompt, answer and columns up by it.
    return Dataset.from_list([{"prompt": row.prompt, "row": at} for at, row in enumerate(rows, first)])
