"""Direct preference optimization: of two answers, the better one is made more likely than the reference has it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator, model_validator

from studio.errors import InputError
from studio.methods.fields import numbers_of, require_one_each, words_of
from studio.methods.method import Asked, MethodCost, Rate
from studio.methods.preference import METRICS, BetaOptions, PreferenceMethod
from studio.option import option

DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
DPO_LOSSES: tuple[str, ...] = DpoLoss.__args__  # type: ignore[attr-defined]
# Losses that compare the pairs of a micro-batch with each other, or are a mean over its tokens.
_NOT_BY_PAIR = {"aot", "aot_unpaired", "sft"}


class DpoOptions(BetaOptions):
    """What DPO reads."""

    dpo_loss: str | list[DpoLoss] = option(
        lambda: ["sigmoid"], f"One or several of {', '.join(DPO_LOSSES)}.", title="DPO loss", decides="loss"
    )
    dpo_loss_weights: str | list[float] | None = option(
        None,
        "Weight of each DPO loss, such as 1, 0.2; empty weights them equally.",
        title="DPO loss weights",
        decides="loss",
    )
    label_smoothing: float = option(
        0.0, "Assumed probability that a pair's labels are flipped; exo_pair needs some "
        "(0.001).", title="Label smoothing",
        decides="loss", ge=0, lt=0.5, needs=("dpo_loss", ("exo_pair", "robust", "aot", "aot_unpaired")),
    )  # fmt: skip

    @field_validator("dpo_loss", mode="before")
    @classmethod
    def _losses(cls, value: object) -> list[str]:
        return words_of(value, DPO_LOSSES)

    @field_validator("dpo_loss_weights", mode="before")
    @classmethod
    def _loss_weights(cls, value: object) -> object:
        return numbers_of(value)

    @field_validator("dpo_loss_weights")
    @classmethod
    def _something_counts(cls, value: list[float] | None) -> list[float] | None:
        # Below 0 the better answer would be made less likely, and with nothing but 0 nothing is learned.
        if value is not None and (not any(value) or min(value) < 0):
            raise ValueError("weights of 0 or more, at least one of them above 0")
        return value

    @model_validator(mode="after")
    def _one_weight_for_each_loss(self) -> DpoOptions:
        require_one_each("dpo_loss_weights", self.dpo_loss_weights, self.dpo_loss)
        return self


class _Dpo(PreferenceMethod):
    def check(self, options: DpoOptions, asked: Asked) -> None:
        super().check(options, asked)
        if "exo_pair" in options.dpo_loss and options.label_smoothing == 0:
            raise InputError(
                "exo_pair needs label smoothing above 0", where="method.label_smoothing", fix="Set it to 0.001"
            )
        if options.dpo_loss == ["sft"]:
            raise InputError(
                "the sft loss alone ignores the rejected answers", where="method.dpo_loss",
                fix="Combine it (sigmoid, sft), or set method.name to sft",
            )  # fmt: skip

    def by_length(self, options: DpoOptions) -> bool:
        return not _NOT_BY_PAIR & set(options.dpo_loss)


DPO = _Dpo(
    name="dpo",
    title="DPO",
    summary="pairs of a chosen and a rejected answer",
    sentence="prefer the better of two answers",
    rows="pairs",
    columns="prompt, chosen and rejected",
    options=DpoOptions,
    metrics=METRICS,
    rates=(
        Rate(True, 1e9, 1e-4, "small models and adapters tolerate high rates", "measured on the demo pairs"),
        Rate(True, math.inf, 5e-6, "ten times the rate of full fine-tuning", "TRL's recommendation for LoRA"),
        Rate(False, math.inf, 5e-7, "the paper's rate", "Tunstall et al. 2023, arXiv:2310.16944"),
    ),
    cost=MethodCost(sequences=2, reference="always", logits="tiles"),
    trainer="dpo",
    beta=0.1,
    unsloth=True,
    shards=True,
    exact=True,
    paper="Rafailov et al. 2023, arXiv:2305.18290",
    differs="Answers are tokenized with the studio's masks, so a pair is compared from its first differing token on.",
)
