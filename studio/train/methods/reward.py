"""Reward model: scores an answer, so that the better of two gets the higher score. Step 2 of RLHF."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

REWARD = Method(
    name="reward",
    title="Reward model",
    summary="a model that scores answers",
    columns="prompt, chosen and rejected",
    metrics=(
        Metric("accuracy", "Reward accuracy", "higher"),
        Metric("margin", "Reward margin", "higher"),
        Metric("mean_reward", "Mean reward", "neither"),
    ),
    cost=MethodCost(sequences=2, logits="none"),
    trainer="reward",
    result="scorer",
    paper="Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, step 2",
    differs="Pairs over the limit are refused, dropped or cut as data.truncation says; TRL drops them.",
)
