"""What the methods share that learn from answers which the model writes itself: what scores them, how they are written.

The rewards themselves are in `studio.train.rewards`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from studio.methods.fields import numbers_of, require_one_each, words_of
from studio.option import Options, option

RewardName = Literal["exact_match", "numeric", "json", "regex", "length", "model", "python"]
REWARDS: tuple[str, ...] = RewardName.__args__  # type: ignore[attr-defined]


class OnlineOptions(Options):
    """Rewards and completions."""

    rewards: str | list[RewardName] = option(
        lambda: ["exact_match"],
        "One or more reward functions: exact_match and numeric compare it with the row's answer; json, "
        "regex and length check its form; model is a reward model; python is your own function.",
        title="Rewards",
        decides="score",
        tier="basic",
    )
    reward_weights: str | list[float] | None = option(
        None,
        "Weight of each reward, such as 1, 0.2; empty weights them equally.",
        title="Reward weights",
        decides="score",
    )
    reward_model: str | None = option(
        None, "For model: the run that trained it (name or id), or the folder of a reward model.",
        title="Reward model", decides="score", tier="basic", needs=("rewards", ("model",)),
    )  # fmt: skip
    reward_schema: str | None = option(
        None, "For json: a JSON Schema file that the completion must match; empty requires only valid JSON.",
        title="JSON Schema", decides="score", needs=("rewards", ("json",)),
    )  # fmt: skip
    reward_pattern: str | None = option(
        None, "For regex: a pattern (RE2) that must match the whole completion, such as ^\\d+$.", title="Regex pattern",
        decides="score", needs=("rewards", ("regex",)),
    )  # fmt: skip
    reward_length: int | None = option(
        None, "For length: the target number of tokens; the reward decreases with the distance from it.",
        title="Target length", decides="score", unit="tokens", needs=("rewards", ("length",)), ge=1,
    )  # fmt: skip
    reward_python: str | None = option(
        None,
        "For python: FILE.py:FUNCTION, called with prompts, completions and the row's other keys; returns one number "
        "each. It runs with your permissions.",
        title="Python reward",
        decides="score",
        needs=("rewards", ("python",)),
    )
    trust_reward_code: bool = option(
        False, "Run the file of the Python reward. Leave it off unless you have read it.", title="Trust reward code",
        needs=("rewards", ("python",)),
    )  # fmt: skip
    max_completion_length: int = option(
        64, "Maximum length of a completion generated in training.", title="Maximum completion length",
        unit="tokens", tier="basic", ge=1, le=65536, differs="TRL: 512, which takes minutes per step on a CPU.",
    )  # fmt: skip
    temperature: float = option(
        1.0, "Sampling temperature of the completions; 1 samples from the model's own probabilities.",
        title="Temperature", gt=0, le=10,
    )  # fmt: skip
    clip_range: float = option(
        0.2,
        "How far one update may move the probability ratio of a token (epsilon).",
        title="Clip range",
        decides="loss",
        gt=0,
        lt=1,
    )

    @field_validator("rewards", mode="before")
    @classmethod
    def _rewards(cls, value: object) -> list[str]:
        return words_of(value, REWARDS)

    @field_validator("reward_weights", mode="before")
    @classmethod
    def _reward_weights(cls, value: object) -> object:
        return numbers_of(value)

    @model_validator(mode="after")
    def _one_weight_for_each_reward(self) -> OnlineOptions:
        require_one_each("reward_weights", self.reward_weights, self.rewards)
        return self
