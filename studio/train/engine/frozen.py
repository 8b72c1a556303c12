"""The frozen matrices that layers with adapters stand on, several as one: as they are, or held in 4 bits."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Frozen(Protocol):
    """The matrices of some linear layers, one below the other.

    Attributes:
        dtype: of the numbers that products are computed with.
    """

    dtype: torch.dtype

    def matrix(self) -> torch.Tensor:
        """(sum of the layers' outputs, inputs)."""


class Plain:
    """Weights that lie in memory as they are: one matrix, of which each layer's own becomes a part.

    Args:
        layers: linear layers of the same input.
    """

    def __init__(self, layers: list[nn.Linear]) -> None:
        weights = [layer.weight for layer in layers]
        self._matrix = weights[0].data
        self.dtype = self._matrix.dtype
        if len(layers) > 1:
            self._matrix = torch.cat([weight.data for weight in weights])
            parts = self._matrix.split([weight.shape[0] for weight in weights])
            for weight, part in zip(weights, parts, strict=True):
                weight.data = part

    def matrix(self) -> torch.Tensor:
        """See `Frozen`."""
        return self._matrix


class Quantized:
    """Weights that bitsandbytes holds in 4 bits, made whole for each product.

    Args:
        layers: bitsandbytes' layers of the same input.
    """

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers
        self.dtype: torch.dtype = layers[0].weight.quant_state.dtype

    def matrix(self) -> torch.Tensor:
        """See `Frozen`."""
        from bitsandbytes.functional import dequantize_4bit  # a fifth of the time that loading the libraries takes

        whole = [dequantize_4bit(layer.weight.data, layer.weight.quant_state) for layer in self._layers]
        return whole[0] if len(whole) == 1 else torch.cat(whole)


def frozen_of(layers: list[Any]) -> Frozen | None:
    """What holds the weights of some layers; None where one is trained or of a kind that is not known here."""
    for layer in layers:
        if layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad):
            return None
    if all(type(layer) is nn.Linear for layer in layers):
        return Plain(layers)
    states = [getattr(layer.weight, "quant_state", None) for layer in layers]
    if any(state is None or getattr(state, "quant_type", "") not in ("nf4", "fp4") for state in states):
        return None
    packed = any(layer.weight.shape[0] == 1 or getattr(state, "packing_format_for_cpu", False)
                 for layer, state in zip(layers, states, strict=True))  # fmt: skip
    return None if packed or len({state.dtype for state in states}) > 1 else Quantized(layers)
