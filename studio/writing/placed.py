"""Forwards put in place of modules' own, and what was there before put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

Placed = list[tuple[nn.Module, Any]]
"""Modules, and what stood in place of their class's forward before; None for nothing."""


def put(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Placed:
    """Put a forward in place of each module's own, from now on.

    Args:
        forwards: modules, none of them twice, and what computes them.
    """
    before = [(module, vars(module).get("forward")) for module, _ in forwards]
    for module, forward in forwards:
        module.forward = forward
    return before


@contextmanager
def for_a_while(placed: Placed) -> Iterator[None]:
    """Leave forwards where they were put until this ends.

    Args:
        placed: what `put` returned.
    """
    try:
        yield
    finally:
        for module, before in placed:
            del module.forward
            if before is not None:
                module.forward = before
