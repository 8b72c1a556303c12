"""LoRA (Hu et al. 2021, arXiv:2106.09685): low-rank matrices beside frozen weights.

PEFT keeps the adapter in float32 over a bfloat16 base, which is what an optimizer needs.
"""

from __future__ import annotations

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from studio.config.tuning import TuningConfig
from studio.errors import InputError


def prepare_lora(model: PreTrainedModel, tuning: TuningConfig) -> LoraConfig:
    """Return PEFT's config for this tuning; a new one each time, since trainers change it.

    Raises:
        InputError: a target module does not exist in the model, or is its output head.
    """
    if isinstance(tuning.target_modules, list):
        _check_names(model, tuning.target_modules)
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=lora_alpha(tuning),
        lora_dropout=tuning.dropout,
        target_modules=tuning.target_modules,
        task_type="CAUSAL_LM",
    )


def lora_alpha(tuning: TuningConfig) -> float:
    """Resolve alpha: twice the rank unless a number is given."""
    return 2.0 * tuning.rank if tuning.alpha == "auto" else float(tuning.alpha)


def _check_names(model: PreTrainedModel, wanted: list[str]) -> None:
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inner = sorted(linear - {"lm_head"})
    for name in wanted:
        if name.rpartition(".")[2] not in inner:
            raise InputError(
                f"the model has no inner linear layer '{name}'",
                where="tuning.target_modules",
                fix=f"Choose from {', '.join(inner)}, or all-linear",
            )
