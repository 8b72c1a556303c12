"""Reward model: scores an answer, so that the better of two gets the higher score. Step 2 of RLHF."""

from __future__ import annotations

import math

from studio.methods.method import Method, MethodCost, Metric, Rate
from studio.option import Options, option


class RewardOptions(Options):
    """What only a reward model's training reads."""

    center_rewards_coefficient: float = option(
        0.0, "Centers the rewards around 0, so that runs can be compared (arXiv:2312.09244): 0.01 is usual.",
        title="Reward centering", decides="loss", ge=0, le=10,
    )  # fmt: skip


class _Reward(Method):
    def by_length(self, options: RewardOptions) -> bool:
        return True


REWARD = _Reward(
    name="reward",
    title="Reward model",
    summary="a model that scores answers",
    sentence="a model that scores answers",
    rows="pairs",
    columns="prompt, chosen and rejected",
    options=RewardOptions,
    metrics=(
        Metric("accuracy", "Reward accuracy", "higher"),
        Metric("margin", "Reward margin", "higher"),
        Metric("mean_reward", "Mean reward", "neither"),
    ),
    rates=(
        Rate(True, 1e9, 3e-4, "a new head is trained from scratch", "measured on the demo pairs"),
        Rate(True, math.inf, 1e-4, "TRL's default", "trl.RewardConfig"),
        Rate(False, math.inf, 1e-5, "all weights are updated, so the rate is lower", "Ouyang et al. 2022: 9e-6"),
    ),
    cost=MethodCost(sequences=2, logits="none"),
    trainer="reward",
    result="scorer",
    shards=True,
    paper="Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, step 2",
    differs="data.truncation decides whether pairs over the limit are refused, dropped or truncated; TRL drops them.",
)
