"""The frozen reference that preference methods compare with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from studio.models.inspect.headers import SAFE
from studio.train.setup import Setup
from studio.tunings.adapter import CHANGES_BASE

REFERENCE = "ref"  # TRL takes the adapter of this name as the reference


def reference_model(setup: Setup) -> Any:
    """Return a frozen copy of the model for full tuning; None with an adapter, which is switched off instead.

    It is read from the same folder and not from the name in the model's config, which may be another model.
    """
    if setup.config.tuning.kind.adapter:
        return None
    reference = AutoModelForCausalLM.from_pretrained(
        setup.base,
        dtype=setup.model.dtype,
        attn_implementation=setup.model.config._attn_implementation,
        **reference_options(setup),
    )
    reference.requires_grad_(False)
    reference.eval()
    return reference.to("cuda") if torch.cuda.is_available() else reference


def reference_options(setup: Setup) -> dict[str, Any]:
    """How a reference is read beside number format and attention: with the model's own config, stretched or not."""
    return {
        "config": copy.deepcopy(setup.model.config),
        "trust_remote_code": setup.config.model.trust_remote_code,
        **SAFE,
    }


def keep_start(trainer: Any, setup: Setup) -> None:
    """Keep a frozen copy of an adapter that began in the base weights: without it that base is no reference."""
    if setup.peft_config is None or setup.peft_config.init_lora_weights not in CHANGES_BASE:
        return
    config = copy.deepcopy(trainer.model.peft_config["default"])
    config.init_lora_weights = True  # the copy fills it; otherwise it would take from the base once more
    trainer.model.add_adapter(REFERENCE, config)
    weights = dict(trainer.model.named_parameters())
    for name, weight in weights.items():
        before, mark, after = name.rpartition(".default")
        if mark:
            copied = weights[f"{before}.{REFERENCE}{after}"]
            copied.data.copy_(weight.data)
            copied.requires_grad_(False)
