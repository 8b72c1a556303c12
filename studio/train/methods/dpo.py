"""Direct preference optimization: of two answers, the better one is made more likely than the reference has it."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

PREFERENCE_METRICS = (
    Metric("rewards/accuracies", "Reward accuracy", "higher"),
    Metric("rewards/margins", "Reward margin", "higher"),
    Metric("rewards/chosen", "Chosen reward", "higher"),
    Metric("rewards/rejected", "Rejected reward", "lower"),
)
DPO = Method(
    name="dpo",
    title="DPO",
    summary="pairs of a chosen and a rejected answer",
    columns="prompt, chosen and rejected",
    metrics=PREFERENCE_METRICS,
    cost=MethodCost(sequences=2, reference="always", logits="tiles"),
    trainer="dpo",
    beta=0.1,
    paper="Rafailov et al. 2023, arXiv:2305.18290",
    differs="Answers are tokenized with the studio's masks, so a pair is compared from its first differing token on.",
)
