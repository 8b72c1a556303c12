"""LoRA (Hu et al. 2021, arXiv:2106.09685): low-rank matrices beside frozen weights, and the variants that are options.

PEFT keeps the adapter in float32 over a bfloat16 base, which is what an optimizer needs.
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from studio.errors import InputError
from studio.patterns import require_quick
from studio.tunings import TuningConfig


def prepare(model: PreTrainedModel, tuning: TuningConfig, task: str) -> LoraConfig:
    """Return PEFT's config, a new one each time, since trainers change it.

    Args:
        model, tuning, task: as `studio.train.tuning.prepare`.
    """
    return lora_config(model, tuning, task)


def lora_config(model: PreTrainedModel, tuning: TuningConfig, task: str, **changes: Any) -> LoraConfig:
    """`prepare` with PEFT options that another tuning sets.

    Args:
        model, tuning, task: as `studio.train.tuning.prepare`.
        changes: arguments of PEFT's LoraConfig that replace those made from the section.
    """
    targets = tuning.target_modules
    if isinstance(targets, list):
        _check_names(model, targets)
    elif tuning.layers_to_transform is not None:
        targets = inner_layers(model)  # PEFT takes blocks with names only, not with all-linear
    names = [name for name, _ in model.named_modules()]
    for option in ("rank_pattern", "alpha_pattern"):
        require_quick({option: getattr(tuning, option)}, names, f"tuning.{option}")
    _check_whole(model, changes.get("modules_to_save", tuning.modules_to_save))
    init: Any = True if tuning.init == "default" else tuning.init
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=lora_alpha(tuning),
        lora_dropout=tuning.dropout,
        target_modules=targets,
        task_type=task,
        use_rslora=tuning.rslora,
        rank_pattern=_pattern(tuning.rank_pattern),
        alpha_pattern=_pattern(tuning.alpha_pattern),
        layers_to_transform=tuning.layers_to_transform,
        **{"init_lora_weights": init, "modules_to_save": tuning.modules_to_save, **changes},
    )


def lora_alpha(tuning: TuningConfig) -> float:
    """Resolve alpha: twice the rank unless a number is given."""
    return 2.0 * tuning.rank if tuning.alpha == "auto" else float(tuning.alpha)


def _pattern(given: Any) -> dict[str, Any]:
    """The schema has made a dict of what was written as text."""
    return dict(given or {})


def inner_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that can get an adapter: all but the head."""
    kinds = (nn.Linear, Conv1D)
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)}
    return sorted(linear - {"lm_head", "score"})


def _check_names(model: PreTrainedModel, wanted: list[str]) -> None:
    inner = inner_layers(model)
    for name in wanted:
        if name.rpartition(".")[2] not in inner:
            raise InputError(
                f"the model has no inner linear layer '{name}'",
                where="tuning.target_modules",
                fix=f"Choose from {', '.join(inner)}, or all-linear",
            )


def _check_whole(model: PreTrainedModel, wanted: Any) -> None:
    """PEFT passes over a name that no layer has."""
    there = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for name in wanted or []:
        if name not in there:
            raise InputError(
                f"the model has no layer '{name}'", where="tuning.modules_to_save",
                fix="Use a layer name of the loaded model, such as lm_head",
            )  # fmt: skip
