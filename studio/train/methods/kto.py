"""Kahneman-Tversky optimization: answers that are good or bad, each by itself."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

KTO = Method(
    name="kto",
    title="KTO",
    summary="answers labeled good or bad",
    columns="prompt, completion and label; pairs count as one good and one bad answer",
    metrics=(
        Metric("rewards/accuracies", "Reward accuracy", "higher"),
        Metric("rewards/margins", "Reward margin", "higher"),
        Metric("rewards/chosen", "Desirable reward", "higher"),
        Metric("rewards/rejected", "Undesirable reward", "lower"),
        Metric("kl", "KL", "neither"),
    ),
    cost=MethodCost(sequences=1, reference="always", logits="tiles"),
    trainer="kto",
    beta=0.1,
    paper="Ethayarajh et al. 2024, arXiv:2402.01306",
    differs="Rows are shuffled once with the seed; TRL takes them in the order of the file, good and bad in blocks.",
)
