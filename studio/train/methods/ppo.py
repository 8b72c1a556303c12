"""Proximal policy optimization: the model's own answers, scored, within a small step of where it was. RLHF, step 3."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

PPO = Method(
    name="ppo",
    title="PPO",
    summary="its own completions, scored by a reward model (RLHF)",
    columns="prompt; answer if a reward compares with it",
    metrics=(
        Metric("reward", "Mean reward", "higher"),
        Metric("objective/kl", "KL divergence", "neither"),
        Metric("loss/value", "Value loss", "lower"),
        Metric("policy/clip_fraction", "Clip fraction", "neither"),
        Metric("policy/entropy", "Entropy", "neither"),
        Metric("completions/mean_length", "Completion length", "neither"),
    ),
    cost=MethodCost(reference="always", logits="full", generates=True, value=True),
    trainer="ppo",
    paper="Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593",
    differs="TRL has none since 1.13: the studio's own, with one base for policy, reference, value and reward.",
)
