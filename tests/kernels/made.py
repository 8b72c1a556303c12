"""Number formats of the compiled functions, and how far what they give may be from torch's."""

from __future__ import annotations

import torch

DTYPES = [torch.float32, torch.bfloat16]
# Relative distance to what torch computes in float32 from the same numbers.
NEAR = {torch.float32: 3e-6, torch.bfloat16: 6e-3}


def far(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    mine, theirs = mine.detach().float(), theirs.detach().float()
    return float((mine - theirs).norm() / theirs.norm().clamp(min=1e-6))
