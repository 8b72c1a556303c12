"""A checkpoint loaded to answer rows, and the precision in which it is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from studio.models.inspect.attention import answer_options
from studio.models.inspect.headers import SAFE, read_config


def load_model(path: Path, dtype: torch.dtype) -> Any:
    """Load a checkpoint in evaluation mode, on the GPU where there is one.

    Args:
        path: its folder.
        dtype: of the weights.
    """
    options = answer_options(read_config(path))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options, **SAFE).eval()
    return model.to("cuda") if torch.cuda.is_available() else model


def computing(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """An adapter is float32 over a bfloat16 base: compute both as in training.

    Args:
        dtype: of the base model's weights.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    context: AbstractContextManager[Any] = torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    return context
