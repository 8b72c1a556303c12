"""Group-relative policy optimization: several completions per prompt, each compared with the others of its group."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

GRPO = Method(
    name="grpo",
    title="GRPO",
    summary="its own completions, scored by a verifiable reward",
    columns="prompt; answer if a reward compares with it",
    metrics=(
        Metric("reward", "Mean reward", "higher"),
        Metric("reward_std", "Reward std. dev.", "neither"),
        Metric("kl", "KL divergence", "neither"),
        Metric("completions/mean_length", "Completion length", "neither"),
        Metric("frac_reward_zero_std", "Zero-variance groups", "lower"),
    ),
    cost=MethodCost(reference="beta", logits="tiles", generates=True),
    trainer="grpo",
    paper="Shao et al. 2024, arXiv:2402.03300; Ahmadian et al. 2024, arXiv:2402.14740 (RLOO)",
)
