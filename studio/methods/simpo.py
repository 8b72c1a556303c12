"""Simple preference optimization: the average likelihood of a token is the reward, and a margin is asked for."""

from __future__ import annotations

from studio.methods.method import MethodCost
from studio.methods.orpo import ORPO
from studio.methods.preference import METRICS, BetaOptions, PreferenceMethod
from studio.option import option


class SimpoOptions(BetaOptions):
    """What SimPO reads."""

    simpo_gamma: float = option(
        0.5, "Target reward margin between the two answers (gamma).", title="SimPO margin",
        decides="loss", ge=0, le=10,
    )  # fmt: skip


class _Simpo(PreferenceMethod):
    def deals(self, options: SimpoOptions) -> bool:
        return True

    def loss(self, options: SimpoOptions) -> str:
        return "simpo"


SIMPO = _Simpo(
    name="simpo",
    title="SimPO",
    summary="preference pairs, by average log-probability with a margin",
    sentence="prefer by average log-probability, without a reference model",
    rows="pairs",
    columns="prompt, chosen and rejected",
    options=SimpoOptions,
    metrics=METRICS,
    rates=ORPO.rates,
    cost=MethodCost(sequences=2, logits="full"),
    trainer="orpo",
    beta=2.0,
    unsloth=True,
    shards=True,
    formerly=("orpo", "orpo_loss", "simpo"),
    paper="Meng et al. 2024, arXiv:2405.14734",
)
