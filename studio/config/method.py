"""What the model is taught: the training method and what only methods use."""

from __future__ import annotations

from typing import Literal

from studio.config.option import Options, option

MethodName = Literal["sft"]


class MethodConfig(Options):
    """Section `method`."""

    name: MethodName = option(
        "sft", "sft: learn to answer like the examples.", title="Method", tier="basic"
    )  # fmt: skip
    train_on: Literal["assistant", "last", "all"] = option(
        "assistant",
        "Which tokens count: every assistant answer, only the last one, or the whole text.",
        title="Train on",
        tier="basic",
        methods=("sft",),
        differs="TRL trains on every token of a conversation, the questions too.",
    )
