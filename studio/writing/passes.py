"""Norms and gates of MLPs in one pass through memory each, while text is written on a CPU.

With a few rows such a step is little work, and most of its time is what torch needs to begin each of the eight
operations of a norm, or the two of a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from studio.kernels.recognized import gated_mlps, normed, norms
from studio.writing.products import built


@contextmanager
def in_one_pass(model: nn.Module) -> Iterator[None]:
    """Compute norms and gates so, without gradients, until this ends.

    Args:
        model: a language model; what was put in place of an MLP for training is left out meanwhile.
    """
    own = quicken_passes(model)
    try:
        yield
    finally:
        for module, before in own:
            del module.forward
            if before is not None:
                module.forward = before


def quicken_passes(model: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Compute norms and gates so, without gradients, from now on.

    Returns:
        The modules, and what was put in place of their class's forward before; None for nothing.
    """
    compiled = built()
    if compiled is None:
        return []
    found = [
        (norm, normed(norm.weight, epsilon, offset, compiled), norm.weight)
        for norm, epsilon, offset in norms(model, compiled) if "forward" not in vars(norm)
    ]  # fmt: skip
    found += gated_mlps(model, compiled)
    before = [(module, vars(module).get("forward")) for module, *_ in found]
    for module, forward, weight in found:
        module.forward = _where_it_suits(module.forward, forward, weight)
    return before


def _where_it_suits(own: Callable[..., Any], ours: Callable[..., Any], weight: torch.Tensor) -> Callable[..., Any]:
    width, dtype = weight.shape[-1], weight.dtype

    def forward(x: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if rest or options or torch.is_grad_enabled() or (x.shape[-1], x.dtype) != (width, dtype):
            return own(x, *rest, **options)
        return ours(x)

    return forward
