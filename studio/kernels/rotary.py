"""Rotary positions in one pass through memory: in which layers, and how they come to be computed so.

transformers' layers call a function of their own Python module for it. A layer of ours has its own forward with other
globals: ours stands there in place of that function, for this layer and for no other, whichever threads compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from studio.kernels.calls import KINDS
from studio.kernels.recognized import Layers, random_rows, same

NAME = "apply_rotary_pos_emb"


def rotaries(model: nn.Module, layers: Layers) -> Iterator[nn.Module]:
    """Yield the layers that turn the halves of queries and keys, with a forward that is their class's own.

    Args:
        model: it is not changed.
        layers: whose function would take their own one's place.
    """
    known: dict[Callable[..., Any], bool] = {}
    for module in model.modules():
        forward = type(module).forward
        own = getattr(forward, "__globals__", {}).get(NAME)
        if own is None or NAME not in forward.__code__.co_names or "forward" in vars(module):
            continue
        if own not in known:
            known[own] = _halves(own, layers)
        if known[own]:
            yield module


def with_ours(module: nn.Module, layers: Layers, *, gradients: bool) -> Callable[..., Any]:
    """A layer's forward with our function for its rotary positions, where that takes what it is given.

    Args:
        module: one of `rotaries`.
        layers: whose function that is.
        gradients: it has them; where they are wanted, one without leaves the work to the layer's own.
    """
    forward: Any = type(module).forward
    own = forward.__globals__[NAME]

    def turn(q: torch.Tensor, k: torch.Tensor, *given: Any, **options: Any) -> Any:
        ready = gradients or not torch.is_grad_enabled()
        if not ready or len(given) != 2 or options or not all(_fits(x, *given, layers.device) for x in (q, k)):
            return own(q, k, *given, **options)
        return layers.turn(q, k, *given)

    told = forward.__globals__ | {NAME: turn}
    again = FunctionType(forward.__code__, told, forward.__name__, forward.__defaults__, forward.__closure__)
    again.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(again, module)


def _fits(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, device: str) -> bool:
    rows = ((1, *x.shape[2:]), (x.shape[0], *x.shape[2:])) if x.ndim == 4 else ()
    return x.dtype in KINDS and x.device.type == device and x.stride(-1) == 1 and x.shape[-1] % 2 == 0 and all(
        one.dtype == x.dtype and one.shape in rows and one.stride(-1) == 1 for one in (cosine, sine)
    )  # fmt: skip


def _halves(own: Callable[..., Any], layers: Layers) -> bool:
    """Whether a function gives what ours gives."""

    probe = random_rows(3 * 20, torch.float32, layers.device).view(1, 5, 3, 20)
    if layers.halved:
        probe[:, 3:, :, 10:] = probe[:, 3:, :, :10]

    def both(turn: Callable[..., Any]) -> Callable[[torch.Tensor], torch.Tensor]:
        # Clones, since a function may turn in place.
        return lambda x: torch.cat(turn(x[:, :2].clone(), x[:, 2:3].clone(), x[:, 3], x[:, 4]), 1)

    try:
        return same(both(layers.turn), both(own), probe)
    except Exception:  # a function of anybody's code: it stays as it is
        return False
