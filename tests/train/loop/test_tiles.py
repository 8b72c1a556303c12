"""The tiles of TRL's fused head: smaller ones where it has no Triton kernel, and the same numbers."""

from __future__ import annotations

import pytest
import torch
from trl.kernels import chunked_logprob

from studio.models.plan.memory import TILE_TOKENS, TILE_TOKENS_CUDA
from studio.train.loop.counting import narrow


@pytest.fixture(autouse=True)
def as_trl_has_it(monkeypatch) -> None:
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", TILE_TOKENS_CUDA)


def head() -> tuple[torch.Tensor, ...]:
    """Log-probabilities of 2,500 tokens, and the gradients of the states and of the head."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2500, 16, generator=generator, requires_grad=True)
    weight = torch.randn(300, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 300, (2500,), generator=generator)
    found, *_ = chunked_logprob.ChunkedLogProbFunction.apply(states, weight, None, targets, 1.0, 128)
    (found * torch.linspace(-1, 1, 2500)).sum().backward()
    return found.detach(), states.grad, weight.grad


def test_a_small_tile_gives_the_same_numbers() -> None:
    whole = head()
    narrow(torch.device("cpu"))
    assert chunked_logprob.TOKEN_CHUNK_SIZE == TILE_TOKENS < 2500
    for one, other in zip(whole, head(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_where_triton_changes_a_tile_in_place_it_stays() -> None:
    narrow(torch.device("cuda"))
    assert chunked_logprob.TOKEN_CHUNK_SIZE == TILE_TOKENS_CUDA


def test_trl_has_the_tile_that_the_plan_counts_on_a_gpu() -> None:
    source = chunked_logprob.__spec__.loader.get_source(chunked_logprob.__name__)
    assert f"\nTOKEN_CHUNK_SIZE = {TILE_TOKENS_CUDA}\n" in source
