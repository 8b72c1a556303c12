"""LoRA's layers in three products, while text is written.

PEFT computes an adapter in float32 where the layer's input is bfloat16, in seven steps and for each token anew. Here
its two matrices are made ready once, in the number format of the layer. The weights themselves are not touched: what
is added to them would be rounded, and training goes on from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import nn
from torch.nn import functional

from studio.writing.placed import Placed, put
from studio.writing.products import few, suits


def shorten(model: nn.Module) -> Placed:
    """Compute the adapters of a model so, without gradients, as they are now; they can still be switched off and on.

    Args:
        model: with PEFT's layers in it, or without.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    return put([(layer, forward) for layer in layers if (forward := _short(layer)) is not None])


def _short(layer: Any) -> Callable[..., torch.Tensor] | None:
    """A LoRA layer's forward in short; None where PEFT's own is needed."""
    base = layer.base_layer
    if not isinstance(layer, Linear) or layer.merged or layer.fan_in_fan_out or type(base) is not nn.Linear:
        return None
    weight, bias, whole = base.weight, base.bias, type(layer).forward
    dtype, device = weight.dtype, weight.device.type
    if torch.is_autocast_enabled(device) and dtype != torch.get_autocast_dtype(device):
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    for name in active:
        dropout = layer.lora_dropout[name]
        dropped = getattr(dropout, "p", 0.0) and dropout.training
        if name in layer.lora_variant or layer.lora_bias[name] or dropped:
            return None
    if not active:
        return base.forward  # type: ignore[no-any-return]
    first = torch.cat([layer.lora_A[name].weight.detach() for name in active]).to(dtype)
    second = torch.cat([layer.scaling[name] * layer.lora_B[name].weight.detach() for name in active], 1)
    adapter = (first.contiguous(), second.to(dtype).contiguous()) if suits(weight) else None
    first, second = first.t().contiguous(), second.to(dtype).t().contiguous()

    def forward(x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        if x.dtype != dtype or rest or options:
            return whole(layer, x, *rest, **options)
        used = not layer._disable_adapters
        quick = None if adapter is None else few(x, weight, bias, adapter if used else None)
        if quick is not None:
            return quick
        made = functional.linear(x, weight, bias)
        if used:
            made.view(-1, made.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ first, second)
        return made

    return forward
