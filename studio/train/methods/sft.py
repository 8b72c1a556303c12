"""Supervised fine-tuning: the model learns to give the answers of the examples."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

SFT = Method(
    name="sft",
    title="SFT",
    summary="examples of good answers",
    columns="messages, prompt and completion, instruction and output, or text",
    metrics=(
        Metric("eval_loss", "Validation loss", "lower"),
        Metric("mean_token_accuracy", "Token accuracy", "higher"),
    ),
    cost=MethodCost(),
    trainer="supervised",
    paper="Ouyang et al. 2022, arXiv:2203.02155, step 1",
    differs="The studio's own masks, which work with any chat template; logits at supervised positions only.",
)
