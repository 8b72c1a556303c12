"""Products of matrices of which one is narrow, or has few rows, are torch's."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from studio.kernels.calls import Kernels
from tests.kernels.made import DTYPES, NEAR, far
from tests.parity.made import one_thread


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sampled_from([0, 1, 5, 6, 127, 128, 129, 300]),
    few=st.sampled_from([16, 32, 48]),
    wide=st.sampled_from([16, 48, 64, 80, 192, 576]),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(DTYPES),
)
def test_products_with_the_matrices_of_adapters(kernels: Kernels, rows, few, wide, seed, dtype) -> None:
    assume(kernels.has_low_rank(dtype))
    drawn = torch.Generator().manual_seed(seed)
    both, right = torch.randn(rows, few + wide, generator=drawn).to(dtype), torch.randn(few, wide, generator=drawn)
    (low, high), right = both.split([few, wide], dim=1), right.to(dtype)
    out = torch.randn(rows, wide + 16, generator=drawn).to(dtype)
    before = out.clone()
    kernels.low_rank(low, right, out[:, 16:], add=True)
    assert far(out[:, 16:], before[:, 16:].double() + low.double() @ right.double()) < NEAR[dtype]
    assert torch.equal(out[:, :16], before[:, :16])
    narrow = torch.full((rows, few), torch.nan, dtype=dtype)
    kernels.low_rank(high, right.t().contiguous(), narrow, add=False)
    assert far(narrow, high.double() @ right.t().double()) < NEAR[dtype]
    made = kernels.over_rows(low, high)
    assert made.dtype == torch.float32
    assert far(made, low.t().double() @ high.double()) < NEAR[torch.float32]
    with one_thread():
        assert torch.equal(kernels.over_rows(low, high), made)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 70), width=st.sampled_from([1, 2, 5, 48, 97, 576]), depth=st.sampled_from([1, 7, 16, 100, 576]),
    rank=st.sampled_from([0, 1, 8, 20]), seed=st.integers(0, 1000), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
def test_products_of_a_few_rows(
    kernels: Kernels, rows: int, width: int, depth: int, rank: int, seed: int, dtype: torch.dtype
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    # Of one sign: of numbers that cancel each other out, what is left is rounding.
    left = torch.rand(rows, depth + 3, generator=drawn).to(dtype)[:, 3:]
    right = torch.rand(width + 1, depth + 5, generator=drawn).to(dtype)[1:, :depth]
    down, up = (torch.rand(*shape, generator=drawn).to(dtype) for shape in ((rank, depth), (width, rank)))
    made = kernels.few_rows(left, right, (down, up) if rank else None)
    assert made.dtype == dtype
    low = (left.double() @ down.double().t()).to(dtype)  # is rounded between its two products
    assert far(made, left.double() @ right.double().t() + low.double() @ up.double().t()) < NEAR[dtype]
    with one_thread():
        assert torch.equal(kernels.few_rows(left, right, (down, up) if rank else None), made)


def test_long_sums_are_as_exact_as_torchs(kernels: Kernels) -> None:
    """Two ranks add up half of the rows each: what one sum loses shows as a difference between them and one process."""
    drawn = torch.Generator().manual_seed(3)
    low, high = torch.randn(4000, 16, generator=drawn), torch.randn(4000, 192, generator=drawn)
    outer = torch.empty(192, 16)
    kernels.low_rank(high.t().contiguous(), low, outer, add=False)
    exact = high.double().t() @ low.double()
    torchs = (high.t() @ low - exact).abs().mean()
    for ours in (outer, kernels.over_rows(low, high).t()):
        assert (ours - exact).abs().mean() <= 1.5 * torchs
