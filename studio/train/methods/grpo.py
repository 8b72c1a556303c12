"""Group-relative policy optimisation: several answers a prompt, each compared with the others of its group."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

GRPO = Method(
    name="grpo",
    title="GRPO",
    summary="its own answers, scored by a rule that can be checked",
    columns="prompt; answer where a reward compares with it",
    metrics=(
        Metric("reward", "Mean reward", "higher"),
        Metric("reward_std", "Spread in a group", "neither"),
        Metric("kl", "KL from the start", "neither"),
        Metric("completions/mean_length", "Tokens an answer", "neither"),
        Metric("frac_reward_zero_std", "Groups without a difference", "lower"),
    ),
    cost=MethodCost(reference="beta", logits="tiles", generates=True),
    trainer="grpo",
    paper="Shao et al. 2024, arXiv:2402.03300; Ahmadian et al. 2024, arXiv:2402.14740 (RLOO)",
)
