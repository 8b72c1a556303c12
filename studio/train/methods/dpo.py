"""Direct preference optimisation: of two answers, the better one is made more likely than the reference has it."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

PREFERENCE_METRICS = (
    Metric("rewards/accuracies", "Pairs right", "higher"),
    Metric("rewards/margins", "Margin", "higher"),
    Metric("rewards/chosen", "Reward of the better", "higher"),
    Metric("rewards/rejected", "Reward of the worse", "lower"),
)
DPO = Method(
    name="dpo",
    title="DPO",
    summary="pairs of a better and a worse answer",
    columns="prompt, chosen and rejected",
    metrics=PREFERENCE_METRICS,
    cost=MethodCost(sequences=2, reference="always", logits="tiles"),
    trainer="dpo",
    beta=0.1,
    paper="Rafailov et al. 2023, arXiv:2305.18290",
    differs="Answers are tokenized with the studio's masks, so a pair is compared from its first differing token on.",
)
