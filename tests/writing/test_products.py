"""Products of a few rows: where they are the engine's, and that nothing of it stays when the writing is over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from studio.kernels.calls import Kernels
from studio.writing import products
from studio.writing.placed import for_a_while
from studio.writing.products import MOST_ROWS, few, quicken, suits
from studio.writing.quick import quicker
from tests.writing.test_quick import adapted, continuations, made, prompts


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each product of the engine's: whether it had an adapter."""
    calls: list[bool] = []
    own = Kernels.few_rows

    def counted(self: Kernels, left: Any, right: Any, adapter: Any = None) -> torch.Tensor:
        calls.append(adapter is not None)
        return own(self, left, right, adapter)

    monkeypatch.setattr(Kernels, "few_rows", counted)
    return calls


def test_layers_are_computed_so_and_are_as_before_afterwards(multiplied: list[bool]) -> None:
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 7, bias=False))
    x = torch.randn(3, 5, 24)
    with torch.no_grad():
        wanted = model(x)
        with for_a_while(quicken(model)):
            found = model(x)
            assert len(multiplied) == 2
            with for_a_while(quicken(model)):  # of whom the layers already are, they stay
                assert torch.equal(model(x), found)
        assert (found - wanted).abs().max() < 1e-5
        assert torch.equal(model(x), wanted)
    assert len(multiplied) == 4
    assert not any("forward" in vars(layer) for layer in model)


def test_what_torch_computes(multiplied: list[bool]) -> None:
    layer = nn.Linear(16, 8)
    x = torch.randn(MOST_ROWS, 16)
    with for_a_while(quicken(layer)):
        assert layer(x).requires_grad  # with gradients
        with torch.no_grad():
            assert torch.equal(layer(x.repeat(2, 1)), functional.linear(x.repeat(2, 1), layer.weight, layer.bias))
            assert layer(x[:0]).shape == (0, 8)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert layer(x).dtype == torch.bfloat16
        assert multiplied == []
        with torch.no_grad():
            layer(x)
        assert multiplied == [False]


def test_in_bfloat16_with_autocast_and_without(multiplied: list[bool]) -> None:
    layer = nn.Linear(48, 20, dtype=torch.bfloat16)
    x = torch.randn(5, 48, dtype=torch.bfloat16)
    with torch.no_grad():
        wanted = functional.linear(x.float(), layer.weight.float(), layer.bias.float())
        with for_a_while(quicken(layer)):
            found = layer(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert torch.equal(layer(x), found)
    assert multiplied == [False, False]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "weight", [nn.Parameter(torch.ones(4, 4, dtype=torch.float16)), nn.Parameter(torch.ones(4, 4).t()[::2].t()),
               type("Packed", (nn.Parameter,), {})(torch.ones(4, 4))],
    ids=["float16", "columns apart", "a kind of its own"],
)  # fmt: skip
def test_weights_that_are_left_to_torch(weight: Any) -> None:
    assert not suits(weight)


@pytest.mark.parametrize("with_adapter", [False, True])
def test_writing_uses_them(with_adapter: bool, multiplied: list[bool]) -> None:
    model = adapted(made()) if with_adapter else made()
    with quicker(model):
        continuations(model, prompts(), do_sample=False)
    assert multiplied.count(with_adapter) > 100
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_adapters_that_are_off_add_nothing(multiplied: list[bool]) -> None:
    model = adapted(made())
    with model.disable_adapter(), quicker(model):
        continuations(model, prompts(), do_sample=False)
    assert multiplied and not any(multiplied)


def test_without_compiled_code_torch_writes_the_same(monkeypatch: pytest.MonkeyPatch, multiplied: list[bool]) -> None:
    model = adapted(made())
    with quicker(model):
        ours, _ = continuations(model, prompts(), do_sample=False)
    count = len(multiplied)
    monkeypatch.setattr(products, "built", lambda: None)
    assert few(torch.ones(1, 4), torch.ones(2, 4), None) is None
    with quicker(model):
        theirs, _ = continuations(model, prompts(), do_sample=False)
    assert torch.equal(ours, theirs)
    assert len(multiplied) == count
