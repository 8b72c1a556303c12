"""The fused kernels are worth it: the same updates with and without, in one process, turn about."""

from __future__ import annotations

from statistics import median

import pytest

from tests.benchmarks.engine import GOAL, compare


@pytest.mark.long
@pytest.mark.alone
def test_updates_are_faster_with_them_and_learn_the_same() -> None:
    sides = compare(pairs=3)
    off, auto = sides["off"], sides["auto"]
    ratios = [fused / plain for plain, fused in zip(off.speeds, auto.speeds, strict=True)]
    assert median(ratios) >= GOAL, ratios
    assert auto.losses == pytest.approx(off.losses, rel=5e-3), "both round to bfloat16, at other places"
