"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): an adapter beside weights that bitsandbytes holds in 4 or 8 bits.

On CPUs with AVX512-BF16 bitsandbytes packs a 4-bit weight anew, in place, in the first forward pass without
gradients; whatever reads the weight afterwards (DoRA's norm, a merge) reads garbage. `keep_layout` forbids it.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, PreTrainedModel

from studio.errors import StudioError
from studio.train.tuning.lora import lora_config
from studio.tunings import TuningConfig


def prepare(model: PreTrainedModel, tuning: TuningConfig, task: str) -> LoraConfig:
    """Return PEFT's config; arguments and errors as `studio.train.tuning.prepare`.

    Args:
        model, tuning, task: as `studio.train.tuning.prepare`.
    """
    return lora_config(model, tuning, task, use_dora=tuning.dora, modules_to_save=None, init_lora_weights=True)


def quantization(tuning: TuningConfig, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return how the frozen weights are held.

    Args:
        tuning: section `tuning`.
        dtype: in which products are computed.

    Raises:
        StudioError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise StudioError(
            "qlora needs the package bitsandbytes", where="tuning.name", fix="Install it: pip install bitsandbytes"
        )
    # On a CPU it looks for a kernel on the Hub and says, as an error, that it goes on without.
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    if tuning.bits == "8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=tuning.quant_type,
        bnb_4bit_use_double_quant=tuning.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def leave_file(model: Any) -> None:
    """Copy what was not quantised out of the mapped checkpoint, so that the system can let the whole of it go.

    On a CPU these weights are views of the file. One of them is enough to keep every page that quantising has read
    resident: the 16-bit size of the model, beside its 4 bits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and not tensor.is_cuda:
            tensor.data = tensor.data.clone()


def keep_layout(model: Any) -> None:
    """Keep 4-bit weights as they were loaded; must happen before the first forward pass."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
