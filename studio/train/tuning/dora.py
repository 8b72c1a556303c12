"""DoRA (Liu et al. 2024, arXiv:2402.09353): LoRA for the direction of each weight, and a trained length beside it."""

from __future__ import annotations

from peft import LoraConfig
from transformers import PreTrainedModel

from studio.config.tuning import TuningConfig
from studio.train.tuning.lora import lora_config


def prepare_dora(model: PreTrainedModel, tuning: TuningConfig, task: str) -> LoraConfig:
    """Return PEFT's config; arguments and errors as `prepare_lora`."""
    return lora_config(model, tuning, task, use_dora=True)
