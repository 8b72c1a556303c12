"""The benchmark of answers: both of its sides write, for each of its cases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.benchmarks.generation import GOALS, ROWS, SIDES
from tests.benchmarks.preparation import own_home


@pytest.mark.parametrize(
    "case", [pytest.param(one, marks=pytest.mark.long) if one == "evaluation" else one for one in GOALS]
)
def test_both_sides_answer_every_row(case: str, tiny: Path, tmp_path: Path) -> None:
    written = []
    with own_home(tmp_path), SIDES[case](tiny, tmp_path) as sides:
        for side in sides:
            torch.manual_seed(3)
            written.append(side())
    ours, theirs = written
    assert len(ours) == len(theirs) == (120 if case == "evaluation" else ROWS)
    assert sum(map(len, ours)) > len(ours) and sum(map(len, theirs)) > len(theirs)
