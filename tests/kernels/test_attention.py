"""Attention gives what torch's gives, for any lengths, heads, sizes and windows, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from studio.kernels.calls import Kernels, Segments
from tests.kernels.made import DTYPES, NEAR, far
from tests.parity.made import one_thread


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments, window: int) -> torch.Tensor:
    """Torch's attention, a segment at a time."""
    parts = []
    for start, length in zip(segments.starts, segments.lengths, strict=True):
        one = [x[start : start + length].transpose(0, 1)[None] for x in (q, k, v)]
        after = torch.arange(length)[:, None] - torch.arange(length)[None]
        seen = (after >= 0) & (after < window) if window else after >= 0
        out = functional.scaled_dot_product_attention(*one, attn_mask=seen, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.sampled_from([1, 2, 63, 64, 65, 100, 300]), min_size=1, max_size=5),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3), (8, 1)]),
    size=st.sampled_from([8, 24, 32, 64, 80, 128, 256]),
    window=st.sampled_from([0, 0, 1, 50, 128]),
    seed=st.integers(0, 1000),
)
def test_attention(kernels: Kernels, dtype: torch.dtype, lengths, heads, size, window, seed) -> None:
    drawn = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    q, k, v, slope = (
        torch.randn(tokens, count, size, generator=drawn).to(dtype)
        for count in (heads[0], heads[1], heads[1], heads[0])
    )
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    segments = Segments(tuple(starts), tuple(lengths))
    out, logsum = kernels.attention(q, k, v, segments, window, size**-0.5)
    made = kernels.attention_backward((q, k, v), (out, logsum), slope, segments, window, size**-0.5)
    wide = [x.float().requires_grad_() for x in (q, k, v)]
    expected = plain(*wide, segments, window)
    expected.backward(slope.float())
    assert far(out, expected) < NEAR[dtype]
    whole = torch.cat([x.grad.flatten() for x in wide])  # one of them may be 0: a token that sees itself alone
    assert far(torch.cat([x.flatten() for x in made]), whole) < NEAR[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(
        st.tuples(st.sampled_from([1, 2, 7, 31, 63, 64, 65, 100, 300]), st.integers(-1, 5)), min_size=1, max_size=6
    ),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    size=st.sampled_from([8, 24, 64, 80, 128]),
    seed=st.integers(0, 1000),
)
def test_attention_of_segments_that_continue_others(kernels: Kernels, dtype: torch.dtype, sizes, heads, size, seed):
    drawn = torch.Generator().manual_seed(seed)
    lengths = tuple(length for length, _ in sizes)
    before = tuple(min(place, at - 1) for at, (_, place) in enumerate(sizes))
    segments = Segments(tuple(sum(lengths[:at]) for at in range(len(lengths))), lengths, before)
    q, k, v, slope = (
        torch.randn(sum(lengths), count, size, generator=drawn).to(dtype)
        for count in (heads[0], heads[1], heads[1], heads[0])
    )
    out, logsum = kernels.attention(q, k, v, segments, 0, size**-0.5)
    made = kernels.attention_backward((q, k, v), (out, logsum), slope, segments, 0, size**-0.5)
    wide = [x.float().requires_grad_() for x in (q, k, v)]
    parts = []
    for at, length in enumerate(lengths):  # each with what it continues in front of it, of which only its own counts
        places, other = torch.arange(length) + segments.starts[at], before[at]
        while other >= 0:
            places = torch.cat([torch.arange(lengths[other]) + segments.starts[other], places])
            other = before[other]
        whole = plain(*(x[places] for x in wide), Segments((0,), (len(places),)), 0)
        parts.append(whole[-length:])
    expected = torch.cat(parts)
    expected.backward(slope.float())
    assert far(out, expected) < NEAR[dtype]
    whole = torch.cat([x.grad.flatten() for x in wide])
    assert far(torch.cat([x.flatten() for x in made]), whole) < NEAR[dtype]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 5), heads=st.sampled_from([(1, 1), (4, 2), (9, 3), (8, 1), (5, 5), (14, 2)]),
    tokens=st.sampled_from([1, 3, 16, 65, 200]), masked=st.booleans(),
    sizes=st.sampled_from([(64, 64), (8, 8), (80, 80), (24, 17), (48, 32)]),
    seed=st.integers(0, 1000), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
def test_attention_of_a_next_token(kernels: Kernels, rows: int, heads, tokens, sizes, masked, seed, dtype) -> None:
    drawn = torch.Generator().manual_seed(seed)
    q = torch.randn(rows, 1, heads[0], sizes[0], generator=drawn).to(dtype).transpose(1, 2)
    room = [torch.randn(rows, heads[1], tokens + 4, size, generator=drawn).to(dtype) for size in sizes]
    k, v = (one[:, :, :tokens] for one in room)
    whole_k, whole_v, seen = k.clone(), v.clone(), None
    if masked:
        seen = torch.rand(rows, tokens + 2, generator=drawn)[:, :tokens] < 0.6
        seen[:, : tokens // 3], seen[:, -1] = False, True
        for one in (k, v):
            one[:, :, : tokens // 3] = torch.nan  # padding may hold anything
    made = kernels.next_token(q, k, v, seen, 0.3)
    expected = functional.scaled_dot_product_attention(
        *(one.float() for one in (q, whole_k, whole_v)),
        attn_mask=None if seen is None else seen[:, None, None], scale=0.3, enable_gqa=True,
    ).transpose(1, 2)  # fmt: skip
    assert made.shape == expected.shape and made.dtype == dtype
    assert far(made, expected) < NEAR[dtype]
    with one_thread():
        assert torch.equal(kernels.next_token(q, k, v, seen, 0.3), made)


def test_attention_of_parts_of_a_larger_tensor(kernels: Kernels) -> None:
    both = torch.randn(70, 6 * 16)
    q, k, v = (part.unflatten(1, (2, 16)) for part in both.split(32, dim=1))
    segments = Segments((0,), (70,))
    out, _ = kernels.attention(q, k, v, segments, 0, 0.25)
    assert torch.equal(out, kernels.attention(*(x.contiguous() for x in (q, k, v)), segments, 0, 0.25)[0])


def test_what_no_sequence_holds_is_zero_and_threads_change_nothing(kernels: Kernels) -> None:
    q, k, v, slope = (torch.randn(900, 2, 32) for _ in range(4))
    segments, before = Segments((3, 400), (390, 450)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            result = kernels.attention(q, k, v, segments, 0, 0.2)
            found.append((result[0], *kernels.attention_backward((q, k, v), result, slope, segments, 0, 0.2)))
    finally:
        torch.set_num_threads(before)
    for one in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], one, strict=True))
    for tensor in found[0]:
        assert not tensor[:3].any() and not tensor[393:400].any() and not tensor[850:].any()
        assert tensor[3:393].any()


def test_what_is_no_number_stays_none(kernels: Kernels) -> None:
    x = torch.randn(40, 1, 16)
    x[20] = float("nan")
    out, _ = kernels.attention(x, x, x, Segments((0,), (40,)), 0, 0.25)
    assert out[20:].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keys_that_are_no_numbers_are_not_passed_over(kernels: Kernels, dtype: torch.dtype) -> None:
    """Where a tile has nothing else that is seen, none of its scores is the largest."""
    q, k, v = torch.randn(3, 100, 1, 16).to(dtype)
    whole = k.clone()
    k[:64] = torch.nan  # a tile
    assert kernels.attention(q, k, v, Segments((0,), (100,)), 0, 0.25)[0].isnan().all()
    whole[60] = torch.nan
    out, _ = kernels.attention(q, whole, v, Segments((0,), (100,)), 5, 0.25)
    none = out.isnan().all(-1).flatten()
    assert none.nonzero().flatten().tolist() == [60, 61, 62, 63, 64]
    assert out[~none].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_next_token_that_is_no_number_stays_none(kernels: Kernels, dtype: torch.dtype) -> None:
    q = torch.randn(2, 2, 1, 16).to(dtype)
    k, v = torch.randn(2, 2, 2, 5, 16).to(dtype)
    q[1] = torch.nan
    seen = torch.tensor([[False] * 4 + [True]] * 2)  # the first token of an answer to a short prompt
    out = kernels.next_token(q, k, v, seen, 0.25)
    assert torch.equal(out[0, 0], v[0, :, -1]) and out[1].isnan().all()
