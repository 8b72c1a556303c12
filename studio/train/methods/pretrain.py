"""Continued pretraining: the model reads on, every token of every text counts."""

from studio.models.plan.memory import MethodCost
from studio.train.methods.method import Method, Metric

PRETRAIN = Method(
    name="pretrain",
    title="Pretraining",
    summary="plain text of a domain or a language",
    columns="text; conversations are read as text too",
    metrics=(
        Metric("eval_loss", "Validation loss", "lower"),
        Metric("mean_token_accuracy", "Token accuracy", "higher"),
    ),
    cost=MethodCost(),
    trainer="supervised",
    paper="Gururangan et al. 2020, arXiv:2004.10964",
    differs="A text over the limit is refused, dropped or cut as data.truncation says; with documents: join it goes on "
    "in the next example.",
)
