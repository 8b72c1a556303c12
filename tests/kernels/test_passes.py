"""Norms, rotary positions, gates and losses in one pass give what torch and transformers give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from studio.kernels.calls import Kernels
from tests.kernels.made import DTYPES, NEAR, far


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
@pytest.mark.parametrize("gelu", [False, True], ids=["silu", "gelu"])
def test_gates_of_large_numbers(kernels: Kernels, dtype: torch.dtype, gelu: bool) -> None:
    """What is next to nothing of them is nothing."""
    large = torch.tensor([1e4, 1e8, 1e12, 1e15, 1e18, 1e30, 3e38, torch.inf])
    both = torch.ones(1, 32)
    both[0, :16] = torch.cat([large, -large])
    both = both.to(dtype).requires_grad_()
    gate, up = both.split(16, dim=1)
    expected = (functional.gelu(gate, approximate="tanh") if gelu else functional.silu(gate)) * up
    expected.sum().backward()
    found = kernels.gated(*both.detach().chunk(2, 1), gelu=gelu)
    torch.testing.assert_close(found, expected.detach(), equal_nan=True)
    slopes = kernels.gated_backward(both.detach(), torch.ones(1, 16, dtype=dtype), gelu=gelu)
    torch.testing.assert_close(slopes, both.grad, equal_nan=True)


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


def test_what_is_no_number_stays_none(kernels: Kernels) -> None:
    x = torch.full((1, 16), torch.nan, dtype=torch.bfloat16)
    assert kernels.norm(x, torch.ones(16).bfloat16(), 1e-5)[0].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [2, 20, 64, 128])
@pytest.mark.parametrize("shared", [False, True], ids=["a row's own positions", "positions of all rows"])
def test_rotary_positions(kernels: Kernels, dtype: torch.dtype, size: int, shared: bool) -> None:
    q, k = (
        torch.randn(3, 7, heads * size).to(dtype).unflatten(2, (heads, size)).transpose(1, 2).requires_grad_()
        for heads in (6, 2)
    )
    # As a model makes them both halves of the angles are the same; a function is taken for any.
    cosine, sine = torch.randn(2, 1 if shared else 3, 7, size).to(dtype)
    for x, expected in zip((q, k), apply_rotary_pos_emb(q, k, cosine, sine), strict=True):
        slope = torch.randn(3, 7, x.shape[1], size).to(dtype).transpose(1, 2)
        (wanted,) = torch.autograd.grad(expected, x, slope)
        found = kernels.rotary(x.detach(), cosine, sine)
        assert found.dtype == dtype and far(found, expected) < NEAR[dtype]
        assert far(kernels.rotary(slope, cosine, sine, back=True), wanted) < NEAR[dtype]
