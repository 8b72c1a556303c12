"""Which of a model's modules are RMSNorms and gated MLPs: by what they give for the same input, not by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from studio.kernels.calls import KINDS, WIDTH, Kernels

# Relative distances of outputs and gradients: rounding in float32, and in bfloat16 through some dozen layers.
AGREEMENT = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (5e-2, 2e-1)}
Forward = Callable[[torch.Tensor], torch.Tensor]
Gate = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]  # act(gate) * up, by GELU or by SiLU
Turn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Layers:
    """Norms and rotary positions of one pass through memory each, which may stand in place of a model's own.

    Attributes:
        device: kind of device that they compute on.
        norm: RMSNorm of (…, size) with a weight (size), what is added to the mean of squares, and whether the weights
            are what is added to 1.
        turn: queries and keys (B, H, T, D) turned by cosines and sines (B or 1, T, D).
        halved: `turn` reads the first half of each cosine and sine and takes the second for its copy.
    """

    device: str
    norm: Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]
    turn: Turn
    halved: bool = False


def compiled(built: Kernels) -> Layers:
    """The compiled functions, without gradients.

    Args:
        built: those of this CPU.
    """

    def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: bool) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return built.norm(rows, weight, epsilon, offset=offset)[0].view(x.shape)

    def turn(q: torch.Tensor, k: torch.Tensor, *places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return built.rotary(q, *places), built.rotary(k, *places)

    return Layers("cpu", norm, turn)


def compiled_gate(built: Kernels) -> Gate:
    """The compiled function, without gradients.

    Args:
        built: those of this CPU.
    """

    def gate(first: torch.Tensor, second: torch.Tensor, gelu: bool) -> torch.Tensor:
        flat = (-1, first.shape[-1])
        return built.gated(first.reshape(flat), second.reshape(flat), gelu=gelu).view(first.shape)

    return gate


def base_of(model: Any) -> Any:
    """The model itself, without what PEFT puts around it.

    Args:
        model: as it is trained or asked.
    """
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def distance(theirs: torch.Tensor, mine: torch.Tensor) -> float:
    """Relative distance of two tensors of the same shape."""
    return float((theirs - mine).norm() / theirs.norm().clamp(min=1e-12))


def random_rows(size: int, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    """Five rows, the same each time.

    Args:
        size: numbers of a row.
        dtype: their format.
        device: where they are.
    """
    return torch.randn(5, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)


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


def norms(model: nn.Module, layers: Layers) -> Iterator[tuple[Any, Forward, torch.Tensor]]:
    """Yield RMSNorms, each with a forward of those layers and its weight.

    Of modules of one class and number format the first is tried.

    Args:
        model: it is not changed.
        layers: what would take their place.
    """
    known: dict[tuple[type, torch.dtype], bool | None] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(epsilon, float):
            continue
        if not isinstance(weight, nn.Parameter):  # as in FalconMamba, where it has not even the width of the rows
            continue
        if weight.ndim != 1 or len(weight) % WIDTH or weight.dtype not in KINDS or weight.device.type != layers.device:
            continue
        key = (type(module), weight.dtype)
        if key not in known:
            both = (_norm(weight, epsilon, offset, layers) for offset in (False, True))
            probe = random_rows(len(weight), weight.dtype, layers.device)
            equal = [same(forward, module.forward, probe) for forward in both]
            known[key] = bool(equal.index(True)) if any(equal) else None
        if (offset := known[key]) is not None:
            yield module, _norm(weight, epsilon, offset, layers), weight


def gated_mlps(
    model: nn.Module, gate: Gate, device: str = "cpu", *, packed: bool = False
) -> Iterator[tuple[Any, Forward, torch.Tensor]]:
    """Yield MLPs that are down(act(gate(x)) * up(x)), each with a forward of that gate and its first weight.

    Of modules of one class, activation and number format the first is tried.

    Args:
        model: it is not changed.
        gate: one pass, with GELU by tanh or SiLU.
        device: kind of device that it computes on.
        packed: also those whose weights are packed, as in 4 bits; they give numbers of the format that they are given.
    """
    known: dict[tuple[Any, ...], bool | None] = {}
    for module in model.modules():
        down = getattr(module, "down_proj", None)
        first: Any = getattr(module, "gate_proj", getattr(module, "gate_up_proj", None))
        weight = getattr(first, "weight", None)
        if not isinstance(down, nn.Module) or not isinstance(weight, torch.Tensor) or weight.device.type != device:
            continue
        if weight.dtype not in KINDS and (not packed or weight.is_floating_point()):
            continue
        if not getattr(first, "in_features", 0) or first.out_features % (2 * WIDTH):
            continue
        key = (type(module), type(getattr(module, "act_fn", getattr(module, "activation_fn", None))), weight.dtype)
        if key not in known:
            dtype = weight.dtype if weight.dtype in KINDS else torch.bfloat16
            probe = random_rows(first.in_features, dtype, device)
            fits = (gelu for gelu in (False, True) if _fits(module, gelu, gate, probe))
            known[key] = next(fits, None)
        if (gelu := known[key]) is not None:
            yield module, _mlp(module, gelu, gate), weight


def _norm(weight: torch.Tensor, epsilon: float, offset: bool, layers: Layers) -> Forward:
    return lambda x: layers.norm(x, weight, epsilon, offset)


def _fits(module: Any, gelu: bool, gate: Gate, probe: torch.Tensor) -> bool:
    try:
        return same(_mlp(module, gelu, gate), module.forward, probe)
    except Exception:  # a module of anybody's code: it stays as it is
        return False


def _mlp(module: Any, gelu: bool, gate: Gate) -> Forward:
    both = getattr(module, "gate_up_proj", None)

    def forward(x: torch.Tensor) -> torch.Tensor:
        first, second = (module.gate_proj(x), module.up_proj(x)) if both is None else both(x).chunk(2, -1)
        made: torch.Tensor = module.down_proj(gate(first, second, gelu))
        return made

    return forward
