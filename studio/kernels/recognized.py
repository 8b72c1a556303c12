"""Which of a model's modules are RMSNorms and gated MLPs: by what they give for the same input, not by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from studio.kernels.calls import KINDS, WIDTH, Kernels

# Relative distances of outputs and gradients: rounding in float32, and in bfloat16 through some dozen layers.
AGREEMENT = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (5e-2, 2e-1)}
Forward = Callable[[torch.Tensor], torch.Tensor]


def distance(theirs: torch.Tensor, mine: torch.Tensor) -> float:
    """Relative distance of two tensors of the same shape."""
    return float((theirs - mine).norm() / theirs.norm().clamp(min=1e-12))


def random_rows(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Five rows, the same each time."""
    return torch.randn(5, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def same(ours: Callable[..., Any], own: Callable[..., Any], probe: torch.Tensor) -> bool:
    """Whether two layers give the same for an input.

    Args:
        ours, own: the layers.
        probe: the input.
    """
    with torch.no_grad():
        mine, theirs = ours(probe), own(probe)
    return mine.dtype == theirs.dtype and distance(theirs.float(), mine.float()) <= AGREEMENT[theirs.dtype][0]


def fits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether rows (…, width) are those that a weight (…, width) is for."""
    return (x.dtype, x.shape[-1]) == (weight.dtype, weight.shape[-1])


def norms(model: nn.Module, built: Kernels) -> Iterator[tuple[Any, float, bool]]:
    """Yield RMSNorms, what each adds to the mean of squares, and whether its weights are what is added to 1.

    Of modules of one class and number format the first is tried.

    Args:
        model: it is not changed.
        built: the compiled functions.
    """
    known: dict[tuple[type, torch.dtype], bool | None] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(epsilon, float):
            continue
        if not isinstance(weight, nn.Parameter):  # as in FalconMamba, where it has not even the width of the rows
            continue
        if weight.ndim != 1 or len(weight) % WIDTH or not _is_ours(weight):
            continue
        key = (type(module), weight.dtype)
        if key not in known:
            both = (normed(weight, epsilon, offset, built) for offset in (False, True))
            probe = random_rows(len(weight), weight.dtype)
            equal = [same(forward, module.forward, probe) for forward in both]
            known[key] = bool(equal.index(True)) if any(equal) else None
        if (offset := known[key]) is not None:
            yield module, epsilon, offset


def normed(weight: torch.Tensor, epsilon: float, offset: bool, built: Kernels) -> Forward:
    """An RMSNorm of (…, size) in one pass, without gradients.

    Args:
        weight: (size).
        epsilon: added to the mean of squares.
        offset: the weights are what is added to 1.
        built: the compiled functions.
    """

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return built.norm(rows, weight, epsilon, offset=offset)[0].view(x.shape)

    return forward


def gated_mlps(model: nn.Module, built: Kernels) -> Iterator[tuple[Any, Forward, torch.Tensor]]:
    """Yield MLPs that are down(act(gate(x)) * up(x)), each with its forward without gradients and its first weight.

    The gate is one pass there. Of modules of one class, activation and number format the first is tried.

    Args:
        model: it is not changed.
        built: the compiled functions.
    """
    known: dict[tuple[Any, ...], bool | None] = {}
    for module in model.modules():
        down = getattr(module, "down_proj", None)
        first = getattr(module, "gate_proj", getattr(module, "gate_up_proj", None))
        weight = getattr(first, "weight", None)
        if not isinstance(down, nn.Module) or not isinstance(weight, torch.Tensor) or not _is_ours(weight):
            continue
        if weight.ndim != 2 or len(weight) % (2 * WIDTH):
            continue
        key = (type(module), type(getattr(module, "act_fn", getattr(module, "activation_fn", None))), weight.dtype)
        if key not in known:
            probe = random_rows(weight.shape[1], weight.dtype)
            fits = (gelu for gelu in (False, True) if _fits(module, gelu, built, probe))
            known[key] = next(fits, None)
        if (gelu := known[key]) is not None:
            yield module, _mlp(module, gelu, built), weight


def _is_ours(weight: torch.Tensor) -> bool:
    return weight.dtype in KINDS and weight.device.type == "cpu"


def _fits(module: Any, gelu: bool, built: Kernels, probe: torch.Tensor) -> bool:
    try:
        return same(_mlp(module, gelu, built), module.forward, probe)
    except Exception:  # a module of anybody's code: it stays as it is
        return False


def _mlp(module: Any, gelu: bool, built: Kernels) -> Forward:
    both = getattr(module, "gate_up_proj", None)

    def forward(x: torch.Tensor) -> torch.Tensor:
        gate, up = (module.gate_proj(x), module.up_proj(x)) if both is None else both(x).chunk(2, -1)
        flat = (-1, gate.shape[-1])
        made: torch.Tensor = module.down_proj(
            built.gated(gate.reshape(flat), up.reshape(flat), gelu=gelu).view(gate.shape)
        )
        return made

    return forward
