"""Odds-ratio preference optimization, and CPO: a preference beside the likelihood of the chosen answer."""

from __future__ import annotations

import math
from typing import Literal

from studio.methods.method import OURS, MethodCost, Metric, Rate
from studio.methods.preference import METRICS, BetaOptions, PreferenceMethod
from studio.option import option


class OrpoOptions(BetaOptions):
    """What ORPO reads."""

    orpo_loss: Literal["orpo", "cpo"] = option(
        "orpo",
        "orpo (arXiv:2403.07691) or cpo (2401.08417).",
        title="Preference loss",
        decides="loss",
    )


class _Orpo(PreferenceMethod):
    def deals(self, options: OrpoOptions) -> bool:
        return True

    def by_part(self, options: OrpoOptions) -> str:
        return "the likelihood's mean over tokens is taken"

    def loss(self, options: OrpoOptions) -> str:
        return options.orpo_loss


ORPO = _Orpo(
    name="orpo",
    title="ORPO",
    summary="preference pairs, without a reference model",
    sentence="SFT and preferences in one step, without a reference model",
    rows="pairs",
    columns="prompt, chosen and rejected",
    options=OrpoOptions,
    metrics=(*METRICS, Metric("nll_loss", "Chosen NLL", "lower")),
    rates=(
        Rate(True, 1e9, 1e-3, "small models and adapters tolerate high rates", "measured on the demo pairs"),
        Rate(True, math.inf, 5e-5, "higher than for full fine-tuning", OURS),
        Rate(False, math.inf, 8e-6, "the paper's rate", "Hong et al. 2024, arXiv:2403.07691"),
    ),
    cost=MethodCost(sequences=2, logits="full"),
    trainer="orpo",
    beta=0.1,
    unsloth=True,
    shards=True,
    paper="Hong et al. 2024, arXiv:2403.07691",
)
