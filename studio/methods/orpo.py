"""Odds-ratio preference optimization and its relatives without a reference model: SimPO and CPO."""

from __future__ import annotations

import math
from typing import Literal

from studio.methods.method import OURS, MethodCost, Metric, Rate
from studio.methods.preference import METRICS, BetaOptions, PreferenceMethod
from studio.option import option


class OrpoOptions(BetaOptions):
    """What ORPO reads."""

    orpo_loss: Literal["orpo", "simpo", "cpo"] = option(
        "orpo",
        "orpo (arXiv:2403.07691), simpo (2405.14734: average likelihood with a margin) or cpo (2401.08417).",
        title="Preference loss",
        decides="loss",
    )
    simpo_gamma: float = option(
        0.5, "Target reward margin of simpo (gamma).", title="SimPO margin", decides="loss", ge=0, le=10,
        needs=("orpo_loss", ("simpo",)),
    )  # fmt: skip


class _Orpo(PreferenceMethod):
    def loss(self, options: OrpoOptions) -> str:
        return options.orpo_loss

    def usual_beta(self, options: OrpoOptions) -> float:
        # SimPO's weights average likelihoods, which are small (Meng et al. 2024, arXiv:2405.14734: 2.0 to 2.5).
        return 2.0 if options.orpo_loss == "simpo" else self.beta


ORPO = _Orpo(
    name="orpo",
    title="ORPO",
    summary="preference pairs, without a reference model",
    sentence="answers and preferences in one, without a reference model",
    rows="pairs",
    columns="prompt, chosen and rejected",
    options=OrpoOptions,
    metrics=(*METRICS, Metric("nll_loss", "Chosen NLL", "lower")),
    rates=(
        Rate(True, 1e9, 1e-3, "small models and adapters bear large steps", "measured on the demo pairs"),
        Rate(True, math.inf, 5e-5, "more than full tuning's", OURS),
        Rate(False, math.inf, 8e-6, "the step of the paper", "Hong et al. 2024, arXiv:2403.07691"),
    ),
    cost=MethodCost(sequences=2, logits="full"),
    trainer="orpo",
    beta=0.1,
    unsloth=True,
    paper="Hong et al. 2024, arXiv:2403.07691",
)
