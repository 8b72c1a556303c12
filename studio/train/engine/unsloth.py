"""The engine `unsloth`: the model and its adapter come from Unsloth, the rest of the run is the same.

Unsloth replaces parts of transformers, PEFT and TRL when it is imported, so it must be imported before them, which
`studio.train.__main__` does. Trainers, data, events and checks stay the studio's; our own loss is not attached, since
the forward pass is Unsloth's. Its calls are held against the signatures of a release
(tests/train/engine/unsloth/test_unsloth.py).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from studio.config import RunConfig
from studio.models.catalog.available import disagreements
from studio.models.plan.making import Plan
from studio.train.tuning.lora import lora_alpha


def load(config: RunConfig, plan: Plan, folder: Path) -> Any:
    """Load the checkpoint in `folder` with a new adapter on it.

    Args:
        config: the run; `checks.model` has refused what Unsloth does not take.
        plan: number format, and whether activations are computed twice.
        folder: a Hugging Face checkpoint.
    """
    tuning, method = config.tuning, config.method
    bits = tuning.kind.weight_bits(tuning)
    length = config.data.limit + (method.max_completion_length if method.kind.online else 0)
    unsloth: Any = importlib.import_module("unsloth")
    # By its word "unsloth" activations are offloaded, too.
    saving: str | bool = "unsloth" if plan.activation_offloading else plan.activation_checkpointing
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=length,
        dtype=getattr(torch, plan.dtype),
        load_in_4bit=0 < bits < 8,
        load_in_8bit=bits == 8,
        load_in_16bit=not bits,
        use_exact_model_name=True,  # otherwise it takes a quantised copy of the same name from the Hub
        use_gradient_checkpointing=saving,
        random_state=config.training.seed,
        trust_remote_code=config.model.trust_remote_code,
    )
    return unsloth.FastLanguageModel.get_peft_model(
        model,
        r=tuning.rank,
        target_modules=tuning.target_modules,
        lora_alpha=lora_alpha(tuning),
        lora_dropout=tuning.dropout,
        bias="none",
        layers_to_transform=tuning.layers_to_transform,
        use_rslora=tuning.rslora,
        modules_to_save=tuning.modules_to_save if tuning.reads("modules_to_save") else None,
        use_gradient_checkpointing=saving,
        random_state=config.training.seed,
        max_seq_length=length,
    )


def warning() -> str:
    """Say which packages differ from what the installed Unsloth asks for; "" if none does."""
    found = disagreements("unsloth")
    return f"this Unsloth expects other versions and may fail: {'; '.join(found)}" if found else ""
