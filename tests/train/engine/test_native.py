"""The compiled code gives what torch gives, for any lengths, heads, sizes and windows, forwards and backwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from studio.errors import StudioError
from studio.kernels import building
from studio.kernels.calls import Kernels, Segments
from studio.models.device import compiled
from studio.train.engine.attention import segments_of
from tests.parity.made import one_thread

DTYPES = [torch.float32, torch.bfloat16]
# Relative distance to what torch computes in float32 from the same numbers.
NEAR = {torch.float32: 3e-6, torch.bfloat16: 6e-3}


def far(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    mine, theirs = mine.detach().float(), theirs.detach().float()
    return float((mine - theirs).norm() / theirs.norm().clamp(min=1e-6))


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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sampled_from([0, 1, 5, 6, 127, 128, 129, 300]),
    few=st.sampled_from([16, 32, 48]),
    wide=st.sampled_from([16, 48, 64, 80, 192, 576]),
    seed=st.integers(0, 1000),
)
def test_products_with_the_matrices_of_adapters(kernels: Kernels, rows, few, wide, seed) -> None:
    drawn = torch.Generator().manual_seed(seed)
    both, right = torch.randn(rows, few + wide, generator=drawn), torch.randn(few, wide, generator=drawn)
    low, high = both.split([few, wide], dim=1)
    out = torch.randn(rows, wide + 16, generator=drawn)
    before = out.clone()
    kernels.low_rank(low, right, out[:, 16:], add=True)
    assert far(out[:, 16:], before[:, 16:].double() + low.double() @ right.double()) < NEAR[torch.float32]
    assert torch.equal(out[:, :16], before[:, :16])
    narrow = torch.full((rows, few), torch.nan)
    kernels.low_rank(high, right.t().contiguous(), narrow, add=False)
    assert far(narrow, high.double() @ right.t().double()) < NEAR[torch.float32]
    made = kernels.over_rows(low, high)
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [16, 576])
def test_norm(kernels: Kernels, dtype: torch.dtype, size: int) -> None:
    layer = LlamaRMSNorm(size, eps=1e-5).to(dtype)
    layer.weight.data = torch.rand(size).to(dtype)
    x, slope = torch.randn(150, size).to(dtype).requires_grad_(), torch.randn(150, size).to(dtype)
    expected = layer(x)
    expected.backward(slope)
    out, scales = kernels.norm(x.detach(), layer.weight.data, 1e-5)
    assert far(out, expected) < NEAR[dtype]
    made, slopes = kernels.norm_backward(x.detach(), layer.weight.data, scales, slope, trained=True)
    assert far(made, x.grad) < NEAR[dtype] and slopes is not None
    assert far(slopes, layer.weight.grad) < NEAR[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_of_gemma(kernels: Kernels, dtype: torch.dtype) -> None:
    layer = GemmaRMSNorm(32, eps=1e-5).to(dtype)
    layer.weight.data = torch.randn(32).to(dtype)
    x, slope = torch.randn(9, 32).to(dtype).requires_grad_(), torch.randn(9, 32).to(dtype)
    expected = layer(x)
    expected.backward(slope)
    out, scales = kernels.norm(x.detach(), layer.weight.data, 1e-5, offset=True)
    assert far(out, expected) < NEAR[dtype]
    made, slopes = kernels.norm_backward(x.detach(), layer.weight.data, scales, slope, offset=True)
    assert far(made, x.grad) < NEAR[dtype] and slopes is None
    _, slopes = kernels.norm_backward(x.detach(), layer.weight.data, scales, slope, offset=True, trained=True)
    assert slopes is not None and far(slopes, layer.weight.grad) < NEAR[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gelu", [False, True], ids=["silu", "gelu"])
def test_gate(kernels: Kernels, dtype: torch.dtype, gelu: bool) -> None:
    both = (torch.randn(7, 96) * 4).to(dtype)
    both[0, :8] = torch.tensor([0.0, -200, 200, -90, 90, -88, 1e-8, -1e-8])
    both.requires_grad_()
    slope = torch.randn(7, 48).to(dtype)
    gate, up = both.split(48, dim=1)
    expected = (functional.gelu(gate, approximate="tanh") if gelu else functional.silu(gate)) * up
    expected.backward(slope)
    assert far(kernels.gated(*both.detach().chunk(2, 1), gelu=gelu), expected) < NEAR[dtype]
    assert far(kernels.gated_backward(both.detach(), slope, gelu=gelu), both.grad) < NEAR[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [5, 64, 1003])
@pytest.mark.parametrize("by_probability", [False, True], ids=["nll", "dft"])
def test_cross_entropy(kernels: Kernels, dtype: torch.dtype, size: int, by_probability: bool) -> None:
    logits = (torch.randn(11, size) * 5).to(dtype)
    logits[0] += 3000  # only what is below the largest counts
    targets = torch.randint(0, size, (11,))
    wide = logits.float().requires_grad_()
    losses = functional.cross_entropy(wide, targets, reduction="none")
    (losses * torch.exp(-losses.detach()) if by_probability else losses).sum().backward()
    kept = logits.clone()
    found, best = kernels.cross_entropy(kept, targets, by_probability=by_probability, gradient=False)
    assert torch.equal(kept, logits) and torch.equal(best, logits.argmax(-1))
    torch.testing.assert_close(found, losses.detach(), rtol=1e-5, atol=1e-5)
    kernels.cross_entropy(kept, targets, by_probability=by_probability, gradient=True)
    assert far(kept, wide.grad) < NEAR[dtype]


def test_numbers_that_are_none_stay_none(kernels: Kernels) -> None:
    x = torch.randn(40, 1, 16)
    x[20] = float("nan")
    out, _ = kernels.attention(x, x, x, Segments((0,), (40,)), 0, 0.25)
    assert out[20:].isnan().all()
    assert kernels.norm(x[20:21, 0].bfloat16(), torch.ones(16).bfloat16(), 1e-5)[0].isnan().all()


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


def test_it_is_compiled_once_and_without_a_compiler_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building.load(compiled.place())
    ready = compiled.place() / compiled.file_name()
    shutil.copy(ready, tmp_path / ready.name)
    before = (tmp_path / ready.name).stat().st_mtime_ns
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert Kernels(building.load(tmp_path)).gated(*torch.ones(1, 32).chunk(2, 1)).shape == (1, 16), (
        "nor is one needed again"
    )
    assert (tmp_path / ready.name).stat().st_mtime_ns == before
    with pytest.raises(StudioError, match=r"C\+\+ compiler"):
        building.load(tmp_path / "elsewhere")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'x.cpp:1: error: no' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(StudioError, match=r"does not compile here: x\.cpp:1: error: no"):
        building.load(tmp_path / "third")
    assert list((tmp_path / "third").iterdir()) == []
