"""Supervised fine-tuning: the model learns to give the answers of the examples."""

from __future__ import annotations

import math
from typing import Literal

from studio.methods.method import OURS, Method, MethodCost, Metric, Rate, TrainOn
from studio.option import Options, option

_QLORA = "Dettmers et al. 2023, arXiv:2305.14314"
SUPERVISED_METRICS = (
    Metric("eval_loss", "Validation loss", "lower"),
    Metric("mean_token_accuracy", "Token accuracy", "higher"),
)


class SftOptions(Options):
    """What only SFT reads."""

    train_on: TrainOn = option(
        "assistant",
        "Which tokens the loss counts: every assistant turn, only the last one, or the whole text. turns is assistant "
        "with the line break that many templates write after a turn, which LLaMA-Factory counts.",
        title="Train on",
        decides="score",
        tier="basic",
        differs="TRL trains on every token of a conversation, including the prompts.",
    )
    loss: Literal["nll", "dft"] = option(
        "nll",
        "nll is cross-entropy; dft weights each token by its probability under the model (arXiv:2508.05629).",
        title="Loss",
        decides="loss",
    )
    neftune_noise_alpha: float = option(
        0.0,
        "Noise added to the embeddings in training (NEFTune, arXiv:2310.05914): 5 is usual, 0 is none.",
        title="NEFTune noise",
        ge=0,
        le=100,
    )


class _Sft(Method):
    def train_on(self, options: SftOptions) -> TrainOn:
        return options.train_on

    def loss(self, options: SftOptions) -> str:
        return options.loss

    def by_length(self, options: SftOptions) -> bool:
        return True


SFT = _Sft(
    name="sft",
    title="SFT",
    summary="examples of good answers",
    sentence="answer like the examples",
    rows="answers",
    columns="messages, prompt and completion, instruction and output, or text",
    options=SftOptions,
    metrics=SUPERVISED_METRICS,
    rates=(
        Rate(True, 1e9, 1e-3, "small models tolerate high rates", OURS),
        Rate(True, 1e10, 2e-4, "the usual rate of an adapter", _QLORA),
        Rate(True, math.inf, 1e-4, "large models take half the rate", _QLORA),
        Rate(False, 1e9, 5e-5, "all weights are updated, so the rate is lower", "transformers' default"),
        Rate(False, 1e10, 1e-5, "larger models need lower rates", "half of TRL's default, 2e-5"),
        Rate(False, math.inf, 5e-6, "larger models need lower rates", OURS),
    ),
    cost=MethodCost(),
    trainer="supervised",
    padding_free=True,
    unsloth=True,
    shards=True,
    exact=True,
    paper="Ouyang et al. 2022, arXiv:2203.02155, step 1",
    differs="The studio's own masks, which work with any chat template; logits at supervised positions only.",
)
