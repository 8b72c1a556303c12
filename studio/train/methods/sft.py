"""Supervised fine-tuning: the model learns to give the answers of the examples.

The loss is the mean cross-entropy over the supervised tokens of an update (Ouyang et al. 2022, arXiv:2203.02155,
step 1). Which tokens are supervised is `method.train_on`.
"""

from studio.train.methods.method import Method, Metric

SFT = Method(
    name="sft",
    title="SFT",
    summary="examples of good answers",
    needs=("messages", "prompt_completion", "instruction", "text"),
    metrics=(
        Metric("eval_loss", "Validation loss", "lower"),
        Metric("mean_token_accuracy", "Tokens right", "higher"),
    ),
)
