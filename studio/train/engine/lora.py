"""LoRA's layers as one function each: `y = x Wᵀ + b + s (x Aᵀ) Bᵀ`, with its gradients written out.

PEFT computes it in seven steps, in float32 where the layer's input is bfloat16, and keeps what each of them made. Here
the masters stay float32 and everything is computed in the number format of the layer's input; only the input and
`x Aᵀ` are kept. Layers that take the same input (queries, keys and values; gate and up) are one product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def is_plain(layer: Any) -> bool:
    """Whether a layer of PEFT is one that is computed here: LoRA on a linear layer that is not quantized, one adapter.

    Args:
        layer: of a model that PEFT has wrapped.
    """
    if type(getattr(layer, "base_layer", None)) is not nn.Linear or not hasattr(layer, "lora_A"):
        return False
    (name, *more) = list(layer.lora_A) or [""]
    if not name or more or layer.lora_variant or layer.fan_in_fan_out or layer.lora_bias.get(name):
        return False
    base = layer.base_layer
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    return frozen and layer.lora_A[name].weight.dtype == torch.float32


class Group:
    """Layers that take the same input, computed at once.

    Args:
        layers: PEFT's, in the order in which the model calls them; each `is_plain`.
    """

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self._originals = [layer.forward for layer in layers]
        self._sizes = [layer.base_layer.out_features for layer in layers]
        weights = [layer.base_layer.weight for layer in layers]
        self._weight = weights[0].data
        if len(layers) > 1:  # one matrix, of which each layer's own becomes a part
            self._weight = torch.cat([weight.data for weight in weights])
            for weight, part in zip(weights, self._weight.split(self._sizes), strict=True):
                weight.data = part
        biases = [layer.base_layer.bias for layer in layers]
        self._bias = None
        if any(bias is not None for bias in biases):
            parts = [weight.new_zeros(size) if bias is None else bias.data
                     for weight, bias, size in zip(weights, biases, self._sizes, strict=True)]  # fmt: skip
            self._bias = torch.cat(parts)
        self._made: tuple[torch.Tensor, list[torch.Tensor | None]] | None = None

    def attach(self) -> None:
        """Compute the layers here from now on."""
        for place, layer in enumerate(self.layers):
            layer.forward = self._forward(place)

    def detach(self) -> None:
        """Let PEFT compute them again."""
        for layer in self.layers:
            del layer.forward

    def applies(self, x: torch.Tensor) -> bool:
        """Whether this input can be computed here now: neither merged nor switched off, no dropout among several."""
        dropped = self._dropout() > 0
        return x.dtype == self._weight.dtype and all(
            not layer.merged and not layer.disable_adapters and layer.active_adapters == list(layer.lora_A)
            for layer in self.layers
        ) and not (dropped and len(self.layers) > 1)  # fmt: skip

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of all layers side by side, (…, sum of their sizes), for x (…, in)."""
        names = [next(iter(layer.lora_A)) for layer in self.layers]
        scales = [layer.scaling[name] for layer, name in zip(self.layers, names, strict=True)]
        adapters = [
            matrix for layer, name in zip(self.layers, names, strict=True)
            for matrix in (layer.lora_A[name].weight, layer.lora_B[name].weight)
        ]  # fmt: skip
        flat = x.reshape(-1, x.shape[-1])
        out = _Linear.apply(flat, self._weight, self._bias, self._dropout(), scales, *adapters)
        return out.view(*x.shape[:-1], out.shape[-1])

    def _dropout(self) -> float:
        layer = self.layers[0]
        module = layer.lora_dropout[next(iter(layer.lora_A))]
        return float(getattr(module, "p", 0.0)) if module.training else 0.0

    def _forward(self, place: int) -> Callable[..., torch.Tensor]:
        def forward(x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
            if self._made is not None and self._made[0] is x:
                parts = self._made[1]
                if (mine := parts[place]) is not None:
                    parts[place] = None
                    if not any(part is not None for part in parts):
                        self._made = None
                    return mine
            if rest or options or not self.applies(x):
                return self._originals[place](x, *rest, **options)
            parts = list(self.whole(x).split(self._sizes, dim=-1))
            mine, parts[place] = parts[place], None
            self._made = (x, parts) if len(parts) > 1 else None
            return mine

        return forward


class _Linear(torch.autograd.Function):
    """(N, in) to (N, out): one frozen matrix, and low-rank ones for its parts."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dropout: float,
        scales: list[float], *adapters: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        first, second = adapters[::2], adapters[1::2]
        a = torch.cat(first).to(x.dtype)
        scaled = [scale * b for scale, b in zip(scales, second, strict=True)]
        b = torch.block_diag(*scaled).to(x.dtype)  # (out, ranks)
        seen, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        inner = seen @ a.t()
        out = nn.functional.linear(x, weight, bias)
        out.addmm_(inner, b.t())
        ctx.save_for_backward(x, weight, mask, inner, a, b)
        ctx.dropout, ctx.scales = dropout, scales
        ctx.shapes = [(b.shape, b.dtype) for b in second]
        return out

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[Any, ...]:
        x, weight, mask, inner, a, b = ctx.saved_tensors
        given = given.contiguous()
        pulled = given @ b  # (N, ranks)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = given @ weight
            if mask is None:
                dx.addmm_(pulled, a)
            else:
                dx += (pulled @ a) * mask / (1 - ctx.dropout)
        seen = x if mask is None else x * mask / (1 - ctx.dropout)
        da, db = pulled.t() @ seen, given.t() @ inner
        made: list[torch.Tensor] = []
        row = column = 0
        for scale, ((rows, rank), dtype) in zip(ctx.scales, ctx.shapes, strict=True):
            made.append(da[column : column + rank].to(dtype))
            made.append(db[row : row + rows, column : column + rank].to(dtype) * scale)
            row, column = row + rows, column + rank
        return dx, None, None, None, None, *made
