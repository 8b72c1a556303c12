"""Which rows are kept away from training: the same ones for every model, by their number and the seed alone."""

from __future__ import annotations

import random


def choose_validation(rows: int, share: float, seed: int) -> set[int]:
    """Return the places (from 0) of the rows kept away from training.

    At least one and never all where the share is above 0 and there are two rows or more.

    Args:
        rows: how many there are.
        share: of them, 0 to 1.
        seed: the same one gives the same places.
    """
    if share <= 0 or rows < 2:
        return set()
    count = min(rows - 1, max(1, round(rows * share)))
    return set(random.Random(seed).sample(range(rows), count))
