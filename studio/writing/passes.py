"""Norms, rotary positions and gates of MLPs in one pass through memory each, while text is written on a CPU.

With a few rows such a step is little work, and most of its time is what torch needs to begin each of the eight
operations of a norm, the ten of rotary positions, or the two of a gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from studio.kernels.recognized import compiled, compiled_gate, fits, gated_mlps, norms
from studio.kernels.rotary import rotaries, with_ours
from studio.writing.placed import Placed, put
from studio.writing.products import built


def quicken_passes(model: nn.Module) -> Placed:
    """Compute norms, rotary positions and gates so, without gradients, from now on.

    Args:
        model: a language model; what was put in place of a layer for training is left out.
    """
    functions = built()
    if functions is None:
        return []
    layers = compiled(functions)
    found = [one for one in norms(model, layers) if "forward" not in vars(one[0])]
    found += gated_mlps(model, compiled_gate(functions))
    ours = [(module, _where_it_fits(module.forward, forward, weight)) for module, forward, weight in found]
    ours += [(one, with_ours(one, layers, gradients=False)) for one in rotaries(model, layers)]
    return put(ours)


def _where_it_fits(own: Callable[..., Any], ours: Callable[..., Any], weight: torch.Tensor) -> Callable[..., Any]:
    def forward(x: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if rest or options or torch.is_grad_enabled() or not fits(x, weight):
            return own(x, *rest, **options)
        return ours(x)

    return forward
