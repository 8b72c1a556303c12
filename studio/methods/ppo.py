"""Proximal policy optimization: the model's own answers, scored, within a small step of where it was. RLHF, step 3."""

from __future__ import annotations

import math

from studio.errors import InputError
from studio.methods.method import OURS, Asked, Method, MethodCost, Metric, Rate
from studio.methods.online import OnlineOptions
from studio.option import option


class PpoOptions(OnlineOptions):
    """What PPO reads."""

    ppo_epochs: int = option(
        4, "Updates made from each batch of completions.", title="PPO epochs", decides="loss", ge=1, le=64
    )
    kl_coef: float = option(
        0.05, "Weight of the KL penalty against the reference model in each token's reward.", title="KL coefficient",
        tier="basic", decides="loss", ge=0, le=10,
    )  # fmt: skip
    kl_target: float | None = option(
        None, "KL per completion that the coefficient is adapted to (Ziegler 2019); empty keeps it fixed.",
        title="KL target", decides="loss", gt=0,
    )  # fmt: skip
    vf_coef: float = option(0.1, "Weight of the value loss.", title="Value coefficient", decides="loss", ge=0)
    gamma: float = option(
        1.0, "Discount factor for future rewards.", title="Discount factor", decides="loss", gt=0, le=1
    )
    lam: float = option(
        0.95,
        "Lambda of generalized advantage estimation (arXiv:1506.02438).",
        title="GAE lambda",
        decides="loss",
        ge=0,
        le=1,
    )
    whiten_rewards: bool = option(
        True, "Normalize the scores to mean 0 and standard deviation 1, by running statistics.",
        title="Whiten rewards", decides="loss", differs="TRL 1.12: off; the KL and the scores then have one scale.",
    )  # fmt: skip


class _Ppo(Method):
    def check(self, options: PpoOptions, asked: Asked) -> None:
        if options.kl_target is not None and options.kl_coef == 0:
            raise InputError(
                "an adaptive KL coefficient cannot start at 0", where="method.kl_coef", fix="0.05 is usual"
            )

    def deals(self, options: PpoOptions) -> bool:
        return True

    def updates(self, options: PpoOptions) -> int:
        return options.ppo_epochs


PPO = _Ppo(
    name="ppo",
    title="PPO",
    summary="its own completions, scored by a reward model (RLHF)",
    sentence="maximize the score of a reward model (RLHF)",
    rows="prompts",
    columns="prompt; answer if a reward compares with it",
    options=PpoOptions,
    metrics=(
        Metric("reward", "Mean reward", "higher"),
        Metric("objective/kl", "KL divergence", "neither"),
        Metric("loss/value", "Value loss", "lower"),
        Metric("policy/clip_fraction", "Clip fraction", "neither"),
        Metric("policy/entropy", "Entropy", "neither"),
        Metric("completions/mean_length", "Completion length", "neither"),
    ),
    rates=(
        Rate(True, 1e9, 3e-4, "small models and adapters tolerate high rates", "measured on the demo task"),
        Rate(True, math.inf, 1e-5, "three times the rate of full fine-tuning", OURS),
        Rate(False, math.inf, 3e-6, "the last default of TRL's PPO", "trl 1.12 PPOConfig"),
    ),
    cost=MethodCost(reference="always", logits="full", generates=True, value=True),
    trainer="ppo",
    paper="Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593",
    differs="TRL has none since 1.13: the studio's own, with one base model for policy, reference, value and reward.",
)
