"""Full fine-tuning: every weight changes, so every weight is held in float32.

AdamW's updates are smaller than what bfloat16 can add to a weight (8 bits of mantissa): masters in float32,
products in bfloat16 under autocast where the device is faster with it.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from studio.tunings import TuningConfig


def prepare(model: PreTrainedModel, tuning: TuningConfig, task: str) -> Any:
    """Make every parameter trainable; there is no adapter, so None is returned.

    Args:
        model: is changed in place, its weights becoming float32.
        tuning, task: not read.
    """
    model.float()
    model.requires_grad_(True)
    return None
