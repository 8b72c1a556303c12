"""Which weights change: one file per tuning, each with a `prepare` that readies the model for it."""

from __future__ import annotations

import importlib
from typing import Any

from transformers import PreTrainedModel

from studio.tunings import TuningConfig


def prepare(model: PreTrainedModel, tuning: TuningConfig, task: str) -> Any:
    """Ready a model for its tuning; returns PEFT's config of a new adapter, or None where every weight is trained.

    Args:
        model: whose layers get an adapter, or whose weights are trained.
        tuning: section `tuning`.
        task: PEFT's task type: CAUSAL_LM, or SEQ_CLS for a model that scores (its head is then saved too).

    Raises:
        InputError: a target module does not exist in the model, or is its output head; or a layer that is to be
            trained whole does not exist.
    """
    return importlib.import_module(f"studio.train.tuning.{tuning.name}").prepare(model, tuning, task)


__all__ = ["prepare"]
