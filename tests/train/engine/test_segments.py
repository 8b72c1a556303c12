"""Which sequences a batch holds, by its mask and positions."""

from __future__ import annotations

import pytest
import torch

from studio.kernels.calls import Segments
from studio.train.engine.attention import segments_of


@pytest.mark.parametrize(
    ("mask", "positions", "expected"),
    [
        (None, None, Segments((0, 5), (5, 5))),
        ([[1, 1, 1, 0, 0], [1] * 5], None, Segments((0, 5), (3, 5))),
        ([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], None, Segments((2, 6), (3, 2))),
        ([[1, 0, 1, 1, 1], [1] * 5], None, None),
        ([[0] * 5, [1] * 5], None, Segments((0, 5), (0, 5))),
    ],
)
def test_padded_rows_are_sequences(mask, positions, expected) -> None:
    assert segments_of(2, 5, None if mask is None else torch.tensor(mask), positions) == expected


def test_a_packed_row_begins_anew_at_position_0() -> None:
    assert segments_of(1, 6, None, torch.tensor([[0, 1, 0, 1, 2, 0]])) == Segments((0, 2, 5), (2, 3, 1))
    assert segments_of(1, 3, None, torch.tensor([[4, 5, 6]])) == Segments((0,), (3,))
