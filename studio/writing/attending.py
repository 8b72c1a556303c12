"""Attention of the next token, by the studio's own code, while text is written on a CPU.

Torch's takes many times as long as reading the keys and values, of which one token needs each once. It is put into
transformers' attention interface by name, as that for training is; prompts are read by torch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from studio.kernels.calls import KINDS, Kernels
from studio.writing.products import built

NAME = "studio_next_token"


@contextmanager
def for_writing(model: Any) -> Iterator[None]:
    """Give a model the attention for writing, in place of torch's or of one that was made for training.

    Args:
        model: a language model of transformers.
    """
    before, compiled = model.config._attn_implementation, built()
    if before == "eager" or not model._supports_sdpa or (before == "sdpa" and compiled is None):
        yield
        return
    if compiled is not None:
        _register(compiled)
    model.set_attn_implementation("sdpa" if compiled is None else NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _register(compiled: Kernels) -> None:
    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        simple = query.shape[2] == 1 and not options.get("dropout") and not torch.is_grad_enabled()
        if simple and _is_ours(query, key, value, attention_mask):
            scale = options.get("scaling") or query.shape[-1] ** -0.5
            seen = None if attention_mask is None else attention_mask[:, 0, 0].expand(len(query), -1)
            return compiled.next_token(query, key, value, seen, scale), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _is_ours(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any) -> bool:
    side_by_side = query.stride(3) == key.stride(3) == value.stride(3) == 1
    alike = query.dtype == key.dtype == value.dtype
    known = mask is None or (
        mask.dtype == torch.bool and mask.shape[1:] == (1, 1, key.shape[2]) and mask.stride(3) == 1
    )
    return query.dtype in KINDS and alike and side_by_side and known and query.device.type == "cpu"
