"""Activation offloading: what checkpointing keeps of each block lies in the computer's memory until the backward pass.

transformers moves the inputs of blocks; within a block checkpointing keeps nothing. So a GPU holds the inputs of two
blocks and not of all of them.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from studio.config import RunConfig
from studio.kernels.recognized import base_of
from studio.models.plan.making import Plan


def offload(model: Any, config: RunConfig, plan: Plan) -> None:
    """Offload whenever checkpointing is turned on: the trainer's argument for it is lost in TRL.

    There kto and grpo turn checkpointing off for a while, and on again by torch's arguments alone.

    Args:
        model: as it is trained; unchanged where the run does not offload, or Unsloth does.
        config: the run.
        plan: which decided it.
    """
    if not plan.activation_offloading or config.training.engine == "unsloth":
        return
    inner = base_of(model)
    enable = inner.activation_checkpointing_enable

    @wraps(enable)
    def enabled(*args: Any, **kwargs: Any) -> None:
        enable(*args, **{**kwargs, "offload": True})

    inner.activation_checkpointing_enable = enabled
