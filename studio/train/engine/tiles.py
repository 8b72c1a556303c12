"""Smaller tiles for TRL's fused head, which DPO, KTO and GRPO take their log-probabilities from.

It computes 4,096 tokens × 32,768 logits at a time. With Triton these are 16-bit numbers that are changed in place;
torch makes seven float32 tensors of them, 4 GB in all. A token's numbers depend on no other token, so a tile can be
smaller.
"""

from __future__ import annotations

import torch
from trl.kernels import chunked_logprob

from studio.models.plan.memory import TILE_TOKENS


def narrow(device: torch.device) -> None:
    """Take at most `TILE_TOKENS` tokens at a time, in this process, on a device for which TRL has no Triton kernel."""
    if device.type not in ("cuda", "xpu"):
        chunked_logprob.TOKEN_CHUNK_SIZE = min(chunked_logprob.TOKEN_CHUNK_SIZE, TILE_TOKENS)
