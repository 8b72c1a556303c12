"""Odds-ratio preference optimisation and its relatives without a reference model: SimPO and CPO."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.dpo import PREFERENCE_METRICS
from studio.train.methods.method import Method, Metric

ORPO = Method(
    name="orpo",
    title="ORPO",
    summary="preference pairs, without a reference model",
    columns="prompt, chosen and rejected",
    metrics=(*PREFERENCE_METRICS, Metric("nll_loss", "Chosen NLL", "lower")),
    cost=MethodCost(sequences=2, logits="full"),
    trainer="orpo",
    beta=0.1,
    paper="Hong et al. 2024, arXiv:2403.07691",
)
