"""Group-relative policy optimization: several completions per prompt, each compared with the others of its group."""

from __future__ import annotations

import math
from typing import Literal

from studio.errors import InputError
from studio.methods.method import OURS, Asked, Method, MethodCost, Metric, Rate
from studio.methods.online import OnlineOptions
from studio.methods.preference import BetaOptions
from studio.option import option


class GrpoOptions(BetaOptions, OnlineOptions):
    """What GRPO reads."""

    grpo_algorithm: Literal["grpo", "rloo"] = option(
        "grpo", "grpo compares completions within a group (arXiv:2402.03300), rloo leaves one out (2402.14740).",
        title="Algorithm", decides="loss",
    )  # fmt: skip
    grpo_loss: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = option(
        "dapo", "How tokens are averaged: dapo over all, grpo within each completion, dr_grpo by a fixed length.",
        title="GRPO loss", decides="loss", needs=("grpo_algorithm", ("grpo",)),
    )  # fmt: skip
    num_generations: int = option(
        4, "Completions generated for each prompt; the batch must be a multiple of it.", title="Completions per prompt",
        tier="basic", ge=2, le=64, differs="TRL: 8 for GRPO.",
    )  # fmt: skip


class _Grpo(Method):
    def check(self, options: GrpoOptions, asked: Asked) -> None:
        size, group = asked.batch_size, options.num_generations
        if size % group:
            nearest = size // group * group or group
            raise InputError(
                f"a batch of {size} completions is not a multiple of the group size "
                f"{group}", where="training.batch_size",
                fix=f"Set it to {nearest} or {nearest + group}, or change method.num_generations",
            )  # fmt: skip
        if asked.rows is not None and asked.rows < size // group:
            raise InputError(
                f"a batch needs {size // group} prompts, but the data has {asked.rows}", where="training.batch_size",
                fix=f"Set it to {asked.rows * group}, or use more rows",
            )  # fmt: skip

    def deals(self, options: GrpoOptions) -> bool:
        # bnpo's is a mean over the tokens of those completions that are computed together.
        return options.grpo_algorithm == "rloo" or options.grpo_loss != "bnpo"

    def completions(self, options: GrpoOptions) -> int:
        return options.num_generations


GRPO = _Grpo(
    name="grpo",
    title="GRPO",
    summary="its own completions, scored by a verifiable reward",
    sentence="maximize a verifiable reward",
    rows="prompts",
    columns="prompt; answer if a reward compares with it",
    options=GrpoOptions,
    metrics=(
        Metric("reward", "Mean reward", "higher"),
        Metric("reward_std", "Reward std. dev.", "neither"),
        Metric("kl", "KL divergence", "neither"),
        Metric("completions/mean_length", "Completion length", "neither"),
        Metric("frac_reward_zero_std", "Zero-variance groups", "lower"),
    ),
    rates=(
        Rate(True, 1e9, 3e-4, "small models and adapters tolerate high rates", "measured on the demo task"),
        Rate(True, math.inf, 1e-5, "ten times the rate of full fine-tuning", OURS),
        Rate(False, math.inf, 1e-6, "TRL's default", "trl.GRPOConfig"),
    ),
    cost=MethodCost(reference="beta", logits="tiles", generates=True),
    trainer="grpo",
    unsloth=True,
    shards=True,
    paper="Shao et al. 2024, arXiv:2402.03300; Ahmadian et al. 2024, arXiv:2402.14740 (RLOO)",
)
