"""Our function for rotary positions is called by the layers that it was put into, by no other, and where it fits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from studio.kernels.calls import Kernels
from studio.kernels.recognized import compiled
from studio.kernels.rotary import rotaries, with_ours
from tests.train.engine.test_fused import SIZES

OWN = modeling_llama.apply_rotary_pos_emb


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def put(model: Any, kernels: Kernels, calls: list[str], *, gradients: bool) -> None:
    """Put ours into a model; each call of it is noted."""

    layers = compiled(kernels)

    def ours(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append("ours")
        return layers.turn(*given)

    for module in rotaries(model, layers):
        module.forward = with_ours(module, replace(layers, turn=ours), gradients=gradients)


def test_threads_that_compute_two_models_of_a_family_get_each_their_own(model: Any, kernels: Kernels) -> None:
    """As evaluation does with the halves of a batch: what one thread takes back must not be the other's."""
    calls: list[str] = []
    other = LlamaForCausalLM(model.config).eval()
    put(model, kernels, calls, gradients=True)
    ids, laps = torch.arange(12)[None], 40

    def compute(one: Any) -> None:
        for _ in range(laps):
            one(ids)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(compute, (model, model, other)))
    assert len(calls) == 2 * 2 * laps  # layers, threads
    assert modeling_llama.apply_rotary_pos_emb is OWN


def test_another_model_of_the_family_is_left_as_it_is(model: Any, kernels: Kernels) -> None:
    calls: list[str] = []
    put(model, kernels, calls, gradients=True)
    LlamaForCausalLM(LlamaConfig(**SIZES))(torch.arange(12)[None])
    assert calls == []


@pytest.mark.parametrize("why", ["gradients", "number format", "other numbers of positions"])
def test_what_it_does_not_fit_is_the_layers_own(why: str, model: Any, kernels: Kernels) -> None:
    calls: list[str] = []
    if why == "number format":
        model = model.double()
    put(model, kernels, calls, gradients=False)
    ids, positions = torch.arange(12)[None], None
    if why == "other numbers of positions":  # one for all tokens: it is spread by torch
        positions = torch.zeros(1, 1, dtype=torch.long)
    plain = LlamaForCausalLM(model.config).to(model.dtype)
    plain.load_state_dict(model.state_dict())
    with torch.set_grad_enabled(why == "gradients"):
        found = model(ids, position_ids=positions).logits
        expected = plain.eval()(ids, position_ids=positions).logits
    assert calls == [] and torch.equal(found, expected)


def test_a_function_that_turns_neighbours_is_left_alone(
    model: Any, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def neighbours(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        turn = [torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) for x in (q, k)]
        return tuple(x * cos[:, None] + y * sin[:, None] for x, y in zip((q, k), turn, strict=True))

    assert len(list(rotaries(model, compiled(kernels)))) == 2
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", neighbours)
    assert list(rotaries(model, compiled(kernels))) == []


def test_a_layer_whose_forward_is_another_already_is_left_alone(model: Any, kernels: Kernels) -> None:
    layer = model.model.layers[0].self_attn
    layer.forward = layer.forward
    assert list(rotaries(model, compiled(kernels))) == [model.model.layers[1].self_attn]
