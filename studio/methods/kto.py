"""Kahneman-Tversky optimization: answers that are good or bad, each by itself."""

from __future__ import annotations

import math
from typing import Literal

from studio.errors import InputError
from studio.methods.method import OURS, Asked, MethodCost, Metric, Rate
from studio.methods.preference import BetaOptions, PreferenceMethod
from studio.option import option


class KtoOptions(BetaOptions):
    """What KTO reads."""

    kto_loss: Literal["kto", "apo_zero_unpaired"] = option(
        "kto",
        "kto (arXiv:2402.01306), or apo_zero_unpaired, which needs no KL estimate.",
        title="KTO loss",
        decides="loss",
    )
    desirable_weight: float = option(
        1.0,
        "Weight of desirable answers; raise it when they are few.",
        title="Desirable weight",
        decides="loss",
        gt=0,
        le=100,
    )
    undesirable_weight: float = option(
        1.0,
        "Weight of undesirable answers; raise it when they are few.",
        title="Undesirable weight",
        decides="loss",
        gt=0,
        le=100,
    )


class _Kto(PreferenceMethod):
    def check(self, options: KtoOptions, asked: Asked) -> None:
        super().check(options, asked)
        if self.least_rows(options) > 1 and 1 in (asked.batch_size, asked.micro_batch_size):
            option = "training.batch_size" if asked.batch_size == 1 else "training.micro_batch_size"
            raise InputError(
                "kto compares the answers within a batch, so a batch of one is not enough", where=option,
                fix="Use 2 or more, or method.kto_loss apo_zero_unpaired",
            )  # fmt: skip
        if asked.rows is not None and asked.good is not None and asked.good in (0, asked.rows):
            kind = "good" if asked.good else "bad"
            raise InputError(
                f"all {asked.rows:,} answers are labeled {kind}, so there is no contrast to learn", where="data.train",
                fix="Add rows with the other label",
            )  # fmt: skip

    def deals(self, options: KtoOptions) -> bool:
        return True

    def by_part(self, options: KtoOptions) -> str:
        return "the KL divergence is estimated" if options.kto_loss == "kto" else ""

    def least_rows(self, options: KtoOptions) -> int:
        # Its estimate of the KL takes another answer of the batch.
        return 2 if options.kto_loss == "kto" else 1


KTO = _Kto(
    name="kto",
    title="KTO",
    summary="answers labeled good or bad",
    sentence="answers labeled good or bad",
    rows="rated",
    columns="prompt, completion and label; pairs count as one good and one bad answer",
    options=KtoOptions,
    metrics=(
        Metric("rewards/accuracies", "Reward accuracy", "higher"),
        Metric("rewards/margins", "Reward margin", "higher"),
        Metric("rewards/chosen", "Desirable reward", "higher"),
        Metric("rewards/rejected", "Undesirable reward", "lower"),
        Metric("kl", "KL", "neither"),
    ),
    rates=(
        Rate(True, 1e9, 1e-4, "small models and adapters tolerate high rates", "measured on the demo pairs"),
        Rate(True, math.inf, 5e-6, "ten times the rate of full fine-tuning", OURS),
        Rate(False, math.inf, 5e-7, "the paper's rate", "Ethayarajh et al. 2024, arXiv:2402.01306"),
    ),
    cost=MethodCost(sequences=1, reference="always", logits="tiles"),
    trainer="kto",
    beta=0.1,
    unsloth=True,
    shards=True,
    mixed=True,
    paper="Ethayarajh et al. 2024, arXiv:2402.01306",
    differs="Rows are shuffled once with the seed; TRL keeps the file order, good and bad in blocks.",
)
