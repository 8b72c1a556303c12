"""The frozen matrices that layers with adapters stand on: as they lie in memory, or held in 4 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn


class Frozen(Protocol):
    """The matrices of some linear layers of the same input.

    Attributes:
        dtype: of the numbers that products are computed with.
    """

    dtype: torch.dtype

    def matrices(self) -> Iterator[torch.Tensor]:
        """Each layer's, (outputs, inputs), one after the other; one may be gone when the next one comes."""


class Plain:
    """Weights that lie in memory as they are.

    Args:
        layers: linear layers.
    """

    def __init__(self, layers: list[nn.Linear]) -> None:
        self._layers = layers
        self.dtype = layers[0].weight.dtype

    def matrices(self) -> Iterator[torch.Tensor]:
        """See `Frozen`."""
        for layer in self._layers:
            yield layer.weight.data


class Quantized:
    """Weights that bitsandbytes holds in 4 bits, made whole for each product.

    Args:
        layers: bitsandbytes' layers.
    """

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers
        self.dtype: torch.dtype = layers[0].weight.quant_state.dtype

    def matrices(self) -> Iterator[torch.Tensor]:
        """See `Frozen`."""
        from bitsandbytes.functional import dequantize_4bit  # a fifth of the time that loading the libraries takes

        for layer in self._layers:
            yield dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def frozen_of(layers: list[Any]) -> Frozen | None:
    """What holds the weights of some layers; None where one is trained or of a kind that is not known here."""
    for layer in layers:
        if layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad):
            return None
    if all(type(layer) is nn.Linear for layer in layers):
        return Plain(layers) if len({layer.weight.dtype for layer in layers}) == 1 else None
    states: list[Any] = [getattr(layer.weight, "quant_state", None) for layer in layers]
    if any(getattr(state, "quant_type", "") not in ("nf4", "fp4") for state in states):
        return None
    packed = any(layer.weight.shape[0] == 1 or getattr(state, "packing_format_for_cpu", False)
                 for layer, state in zip(layers, states, strict=True))  # fmt: skip
    return None if packed or len({state.dtype for state in states}) > 1 else Quantized(layers)
