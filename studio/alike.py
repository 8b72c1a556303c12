"""How far two sequences are alike: tokens of prompts, messages of conversations."""

from __future__ import annotations

from collections.abc import Sequence


def alike(one: Sequence[object], other: Sequence[object], begin: int = 0) -> int:
    """Return how many items both begin with.

    Args:
        one, other: of many sequences the smallest and the largest, as all others then begin alike, too.
        begin: so many are known to be equal.
    """
    shorter = min(len(one), len(other))
    return next((at for at in range(begin, shorter) if one[at] != other[at]), shorter)
