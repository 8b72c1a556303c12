"""The frozen reference that preference methods compare with."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from studio.train.setup import Setup


def reference_model(setup: Setup) -> Any:
    """Return a frozen copy of the model for full tuning; None with an adapter, which is switched off instead.

    It is read from the same folder and not from the name in the model's config, which may be another model.
    """
    if setup.config.tuning.name != "full":
        return None
    reference = AutoModelForCausalLM.from_pretrained(
        setup.base,
        dtype=setup.model.dtype,
        attn_implementation=setup.model.config._attn_implementation,
        trust_remote_code=setup.config.model.trust_remote_code,
        local_files_only=True,
    )
    reference.requires_grad_(False)
    reference.eval()
    return reference.to("cuda") if torch.cuda.is_available() else reference
