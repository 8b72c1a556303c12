"""DoRA (Liu et al. 2024, arXiv:2402.09353): LoRA for the direction of each weight, and a trained length beside it."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from peft.utils.integrations import dequantize_module_weight
from transformers import PreTrainedModel

from studio.train.tuning.lora import lora_config
from studio.tunings import TuningConfig


def prepare(model: PreTrainedModel, tuning: TuningConfig, task: str) -> LoraConfig:
    """Return PEFT's config; arguments and errors as `studio.train.tuning.prepare`.

    Args:
        model, tuning, task: as `studio.train.tuning.prepare`.
    """
    return lora_config(model, tuning, task, use_dora=True)


def exact_lengths(model: Any) -> None:
    """Let adapters that have learned nothing yet begin at the base exactly.

    PEFT writes the lengths in the base's number format: in bfloat16 each is up to 0.4 % off the one that the forward
    pass measures in float32, which moved SmolLM2's log-probabilities by 0.12 a token before the first step.
    """
    for layer in model.modules():
        for name, vector in getattr(layer, "lora_magnitude_vector", {}).items():
            if not layer.lora_B[name].weight.any():
                weight = dequantize_module_weight(layer.get_base_layer()).float()
                vector.weight.data = weight.norm(dim=0 if layer.fan_in_fan_out else 1)
