"""Products of a model's linear layers with a few rows, by the engine's code, while text is written on a CPU.

A step of writing multiplies each weight with one row for each answer. Libraries are made for many rows: of 16 they
compute a third of what the processor can (docs/writing.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from studio.errors import StudioError
from studio.kernels.building import load
from studio.kernels.calls import KINDS, Kernels
from studio.models.device.compiled import place
from studio.writing.placed import Placed, put

MOST_ROWS = 64  # from more on a library is as fast


def quicken(model: nn.Module) -> Placed:
    """Compute plain linear layers so, without gradients, from now on.

    Args:
        model: whose weights stay where they are.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and "forward" not in vars(layer)]
    return put([(layer, _forward(layer)) for layer in layers if suits(layer.weight)])


def suits(weight: Any) -> bool:
    """Whether a weight (width, depth) is one that the engine's code multiplies: plain numbers of this process.

    Args:
        weight: of a linear layer.
    """
    return (
        type(weight) is nn.Parameter and weight.dtype in KINDS and weight.device.type == "cpu"
        and weight.stride(1) == 1 and built() is not None
    )  # fmt: skip


def few(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
    adapter: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor | None:  # fmt: skip
    """A linear layer's output (…, width) for x (…, depth), if these are a few rows; else None.

    Args:
        x: the input.
        weight: (width, depth), which `suits`.
        bias: (width), or None.
        adapter: (rank, depth) and (width, rank), whose product is added to the weight.
    """
    compiled, depth = built(), weight.shape[1]
    if compiled is None or not 0 < x.numel() <= MOST_ROWS * depth or x.dtype != weight.dtype or torch.is_grad_enabled():
        return None
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.get_autocast_dtype("cpu"):
        return None
    made = compiled.few_rows(x.reshape(-1, depth).contiguous(), weight, adapter)
    if bias is not None:
        made += bias
    return made.view(*x.shape[:-1], made.shape[-1])


@cache
def built() -> Kernels | None:
    """The compiled functions; None where they cannot be had, and torch computes everything."""
    try:
        return Kernels(load(place()))
    except StudioError:
        return None


def _forward(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    weight, bias = layer.weight, layer.bias

    def forward(x: torch.Tensor) -> torch.Tensor:
        made = few(x, weight, bias)
        return functional.linear(x, weight, bias) if made is None else made

    return forward
