"""LoRA's layers as one function each: `y = d (x Wᵀ + s (x Aᵀ) Bᵀ) + b`, with its gradients written out.

PEFT computes it in seven steps, in float32 where the layer's input is bfloat16, and keeps what each of them made. Here
the masters stay float32 and everything is computed in the number format of the layer's input; only the input and
`x Aᵀ` are kept. Layers that take the same input (queries, keys and values; gate and up) are one product. d is 1, or
with DoRA the trained length of each row over the length that it has, which PEFT measures on the whole matrix and here
follows from `‖W + sBA‖² = ‖W‖² + 2s⟨W, BA⟩ + s²‖BA‖²`, row by row and without making BA. Products with A and B are the
engine's own: they take a library as long as two to eight times their share of the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from studio.kernels.calls import WIDTH, Kernels
from studio.train.engine.frozen import Frozen, frozen_of

_ROWS = 128  # multiplied at a time


def is_ours(layer: Any) -> bool:
    """Whether a layer of PEFT is one that can be computed here: LoRA or DoRA on a linear layer, one adapter.

    Args:
        layer: of a model that PEFT has wrapped.
    """
    base = getattr(layer, "base_layer", None)
    if not hasattr(layer, "lora_A") or not isinstance(base, nn.Linear):
        return False
    (name, *more) = list(layer.lora_A) or [""]
    if not name or more or getattr(layer, "fan_in_fan_out", False) or layer.lora_bias.get(name):
        return False
    if not set(layer.lora_variant) <= set(layer.lora_magnitude_vector):  # of the variants only DoRA
        return False
    return bool(layer.lora_A[name].weight.dtype == torch.float32)


def dropout_of(layer: Any) -> float:
    """Share of its input that a layer of PEFT drops in training: each layer others, so that each is a group."""
    return float(getattr(layer.lora_dropout[next(iter(layer.lora_A))], "p", 0.0))


class Group:
    """Layers that take the same input, computed at once.

    Args:
        layers: PEFT's, in the order in which the model calls them; each `is_ours`, and all with DoRA or none.
        frozen: their matrices.
        built: the compiled functions; without them torch computes everything.
    """

    def __init__(self, layers: list[Any], frozen: Frozen, built: Kernels | None = None) -> None:
        self.layers, self._frozen, self.dtype = layers, frozen, frozen.dtype
        self._originals = [layer.forward for layer in layers]
        self.sizes = [layer.base_layer.out_features for layer in layers]
        fits = all(size % WIDTH == 0 for size in (layers[0].base_layer.in_features, *self.sizes))
        self._built = built if fits and built is not None and built.has_low_rank(frozen.dtype) else None
        biases = [layer.base_layer.bias for layer in layers]
        self._bias = None
        if any(bias is not None for bias in biases):
            parts = [
                torch.zeros(size) if bias is None else bias.data for bias, size in zip(biases, self.sizes, strict=True)
            ]
            self._bias = torch.cat([part.to(frozen.dtype) for part in parts])
        self._dora = bool(layers[0].lora_variant)
        self._squares = None
        if self._dora:
            self._squares = torch.cat([one.float().square().sum(1) for one in frozen.matrices()])
        self._made: tuple[torch.Tensor, list[torch.Tensor | None]] | None = None

    @classmethod
    def of(cls, layers: list[Any], built: Kernels | None = None) -> Group | None:
        """The group of some layers, as in the constructor; None where they cannot be computed together."""
        if len({bool(layer.lora_variant) for layer in layers}) > 1:
            return None
        frozen = frozen_of([layer.base_layer for layer in layers])
        return None if frozen is None else cls(layers, frozen, built)

    def attach(self) -> None:
        """Compute the layers here from now on."""
        for place, layer in enumerate(self.layers):
            layer.forward = self._forward(place)

    def detach(self) -> None:
        """Let PEFT compute them again."""
        for layer in self.layers:
            del layer.forward

    def applies(self, x: torch.Tensor) -> bool:
        """Whether this input can be computed here now: nothing is merged, and there is no dropout among several."""
        if x.dtype != self._frozen.dtype or any(layer.merged for layer in self.layers):
            return False
        if self._off():
            return not torch.is_grad_enabled()
        dropped = self._dropout() > 0
        return all(
            not layer.disable_adapters and layer.active_adapters == list(layer.lora_A) for layer in self.layers
        ) and not (dropped and (len(self.layers) > 1 or self._dora))  # fmt: skip

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of all layers side by side, (…, sum of their sizes), for x (…, in)."""
        if self._off():
            return self._without(x)
        named = [(layer, next(iter(layer.lora_A))) for layer in self.layers]
        scales = [layer.scaling[name] for layer, name in named]
        trained = [m for layer, name in named for m in (layer.lora_A[name].weight, layer.lora_B[name].weight)]
        if self._dora:
            trained += [layer.lora_magnitude_vector[name].weight for layer, name in named]
        flat = x.reshape(-1, x.shape[-1])
        out = _Linear.apply(
            flat, self._frozen, self._bias, self._dropout(), scales, self._squares, self._built, *trained
        )
        return out.view(*x.shape[:-1], out.shape[-1])

    def _off(self) -> bool:
        return all(layer.disable_adapters for layer in self.layers)

    def _without(self, x: torch.Tensor) -> torch.Tensor:
        """The same without the adapters, to the bit what they give while they are 0: so a reference begins."""
        flat = x.reshape(-1, x.shape[-1])
        out = flat.new_empty(len(flat), sum(self.sizes))
        for weight, part in zip(self._frozen.matrices(), out.split(self.sizes, dim=1), strict=True):
            torch.mm(flat, weight.t(), out=part)
        if self._bias is not None:
            out += self._bias
        return out.view(*x.shape[:-1], out.shape[-1])

    def _dropout(self) -> float:
        layer = self.layers[0]
        return dropout_of(layer) if layer.lora_dropout.training else 0.0

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
            parts = list(self.whole(x).split(self.sizes, dim=-1))
            mine, parts[place] = parts[place], None
            self._made = (x, parts) if len(parts) > 1 else None
            return mine

        return forward


class _Linear(torch.autograd.Function):
    """(N, in) to (N, out): frozen matrices, and low-rank ones for each of them."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, frozen: Frozen, bias: torch.Tensor | None, dropout: float, scales: list[float],
        squares: torch.Tensor | None, built: Kernels | None, *trained: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        count = 2 * len(scales)
        first, second, lengths = trained[:count:2], trained[1:count:2], trained[count:]
        x = x if x.stride(1) == 1 else x.contiguous()
        lows = [one.to(x.dtype) for one in first]
        highs = [(scale * one).to(x.dtype) for scale, one in zip(scales, second, strict=True)]
        if built is not None:  # whose rows fill whole vectors
            lows, highs = [_filled(one, 0) for one in lows], [_filled(one, 1) for one in highs]
        ranks, sizes = [len(low) for low in lows], [len(high) for high in highs]
        a, pieces = torch.cat(lows), highs if built is not None else [torch.block_diag(*highs)]
        seen, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        inner = _put(x.new_empty(len(x), len(a)), seen, a.t(), built)
        out = x.new_empty(len(x), sum(sizes))
        added = []  # to the squares of each row
        for weight, low, high, part in zip(frozen.matrices(), lows, highs, out.split(sizes, dim=1), strict=True):
            torch.mm(x, weight.t(), out=part)
            if squares is not None:
                wide_low, wide_high = low.float(), high.float()
                made = 2 * (weight @ low.t()).float() + wide_high @ (wide_low @ wide_low.t())
                added.append((made * wide_high).sum(1))
        for piece, part, low in _apart(pieces, out, inner):
            _put(part, low, piece.t(), built, add=True)
        factor = length = None
        if squares is not None:
            length = torch.cat(lengths)
            factor = (length / (squares + torch.cat(added)).sqrt()).to(x.dtype)
            out *= factor
        if bias is not None:
            out += bias
        # With DoRA the gradient of a length follows from what the layer gives, which the gate keeps anyway.
        ctx.save_for_backward(x, mask, inner, a, factor, length, None if factor is None else out, *pieces)
        ctx.frozen, ctx.dropout, ctx.scales, ctx.bias, ctx.built = frozen, dropout, scales, bias, built
        ctx.ranks, ctx.shapes = ranks, [(one.shape, one.dtype) for one in second]
        return out

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[Any, ...]:
        x, mask, inner, a, factor, length, out, *pieces = ctx.saved_tensors
        rows = [shape[0] for shape, _ in ctx.shapes]
        given = given.contiguous()
        lengths: list[torch.Tensor] = []
        if factor is not None:
            pulls = _columns(given, out)
            if ctx.bias is not None:
                pulls -= ctx.bias * given.sum(0, dtype=torch.float32)
            lengths = list(torch.where(length == 0, 0.0, pulls / length).split(rows))
            given = given * factor
        pulled = torch.empty_like(inner)  # (N, ranks)
        learned = []
        for piece, part, low, pull in _apart(pieces, given, inner, pulled):
            _put(pull, part, piece, ctx.built)
            learned.append(part.t() @ low if ctx.built is None else ctx.built.over_rows(low, part).t())
        if mask is not None:
            pulled /= 1 - ctx.dropout  # here, where there are least numbers
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _put(torch.empty_like(x), pulled, a, ctx.built)
            if mask is not None:
                dx *= mask
            for weight, part in zip(ctx.frozen.matrices(), given.split(rows, dim=1), strict=True):
                dx.addmm_(part, weight)
        seen = x if mask is None else x * mask
        da = pulled.t() @ seen if ctx.built is None else ctx.built.over_rows(pulled, seen)
        db = learned if ctx.built is not None else _diagonal(learned[0], rows, ctx.ranks)
        made: list[torch.Tensor] = []
        for scale, low, high, ((_, rank), dtype) in zip(ctx.scales, da.split(ctx.ranks), db, ctx.shapes, strict=True):
            made += [low[:rank].to(dtype), high[:, :rank].to(dtype) * scale]
        return dx, None, None, None, None, None, None, *made, *lengths


def _put(
    out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, built: Kernels | None, *, add: bool = False
) -> torch.Tensor:
    """Put a product into `out`, or add it there; returns it."""
    if built is not None:
        built.low_rank(left, right.contiguous(), out, add=add)
    elif add:
        out.addmm_(left, right)
    else:
        torch.mm(left, right, out=out)
    return out


def _filled(matrix: torch.Tensor, side: int) -> torch.Tensor:
    """An adapter's matrix with zeros beside it, up to a rank of whole vectors.

    Args:
        matrix: (rank, inputs), or (outputs, rank).
        side: which of both is the rank.
    """
    missing = -matrix.shape[side] % WIDTH
    return functional.pad(matrix, (0, 0, 0, missing) if side == 0 else (0, missing)) if missing else matrix


def _apart(pieces: list[torch.Tensor], wide: torch.Tensor, *low: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Matrices (outputs, ranks), each with its columns of what layers give (N, outputs), and of each (N, ranks)."""
    sizes, ranks = [len(one) for one in pieces], [one.shape[1] for one in pieces]
    return zip(pieces, wide.split(sizes, dim=1), *(one.split(ranks, dim=1) for one in low), strict=True)


def _diagonal(matrix: torch.Tensor, rows: list[int], ranks: list[int]) -> list[torch.Tensor]:
    """The blocks of a matrix that `block_diag` would put there."""
    return [part.split(ranks, dim=1)[place] for place, part in enumerate(matrix.split(rows))]


def _columns(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """What the columns of two matrices, (N, out) each, have in common: the sums over rows of their products."""
    total = torch.zeros(left.shape[1], dtype=torch.float32)
    for one, other in zip(left.split(_ROWS), right.split(_ROWS), strict=True):  # so that a product stays in the cache
        total += (one * other).sum(0, dtype=torch.float32)
    return total
