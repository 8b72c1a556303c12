"""Continued pretraining: the model reads on, every token of every text counts."""

from __future__ import annotations

import math
from typing import Literal

from studio.methods.method import OURS, Method, MethodCost, Rate, TrainOn
from studio.methods.sft import SUPERVISED_METRICS
from studio.option import Options, option


class PretrainOptions(Options):
    """What only continued pretraining reads."""

    documents: Literal["separate", "join"] = option(
        "separate",
        "separate: each document is an example of its own; join: documents are concatenated, each with its end token, "
        "and split at the maximum length, so that long ones continue and short ones share an example.",
        title="Documents",
        decides="score",
        tier="basic",
    )


class _Pretrain(Method):
    def train_on(self, options: PretrainOptions) -> TrainOn:
        return "all"

    def joins(self, options: PretrainOptions) -> bool:
        return options.documents == "join"

    def loss(self, options: PretrainOptions) -> str:
        return "nll"

    def by_length(self, options: PretrainOptions) -> bool:
        return True


PRETRAIN = _Pretrain(
    name="pretrain",
    title="Pretraining",
    summary="plain text of a domain or a language",
    sentence="continued pretraining on plain text",
    rows="answers",
    columns="text; conversations are read as text too",
    options=PretrainOptions,
    metrics=SUPERVISED_METRICS,
    rates=(
        Rate(True, 1e9, 5e-4, "the loss counts every token, so a step sees more", OURS),
        Rate(True, math.inf, 1e-4, "half the rate of SFT", OURS),
        Rate(False, 1e9, 5e-5, "all weights are updated, so the rate is lower", "transformers' default"),
        Rate(False, math.inf, 1e-5, "larger models need lower rates", OURS),
    ),
    cost=MethodCost(),
    trainer="supervised",
    padding_free=True,
    shards=True,
    exact=True,
    plain=True,
    paper="Gururangan et al. 2020, arXiv:2004.10964",
    differs="data.truncation decides whether a text over the limit is refused, dropped or truncated; with documents: "
    "join it continues in the next example.",
)
