"""The loss at supervised positions equals the model's own loss, and so do its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from studio.kernels.building import load
from studio.kernels.calls import Kernels
from studio.models.device.compiled import place
from studio.train.engine import layers
from studio.train.engine import loss as engine

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["torch", "fused"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    assert engine.attach(model, Kernels(load(place())) if request.param else None)
    return model


def gradients_of(model: LlamaForCausalLM) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@settings(max_examples=25, deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=12, max_size=12),
    chunk=st.sampled_from([1, 3, 1024]),
    items=st.sampled_from([None, 7]),
)
def test_equals_cross_entropy_over_all_positions(model, mask, chunk, items) -> None:
    engine.CHUNK = layers.ROWS = chunk
    try:
        ids = torch.arange(24).reshape(2, 12) % 97
        labels = torch.where(torch.tensor([mask, mask[::-1]]), ids, -100)
        model.zero_grad()
        logits = model(ids).logits[:, :-1].reshape(-1, 97)
        wanted = labels[:, 1:].reshape(-1)
        count = int((wanted != -100).sum())
        expected = functional.cross_entropy(logits, wanted, reduction="sum", ignore_index=-100) / max(1, items or count)
        expected.backward()
        gradients = gradients_of(model)
        model.zero_grad()
        output = model(input_ids=ids, labels=labels, supervised_loss=True, num_items=items)
        output.loss.backward()
        assert int(output.count) == count
        torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-6)
        for ours, plain in zip(gradients_of(model), gradients, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    finally:
        engine.CHUNK, layers.ROWS = 1024, 512


def test_correct_counts_the_models_own_choices(model) -> None:
    ids = torch.arange(12).reshape(1, 12)
    chosen = model(ids).logits.argmax(-1)
    labels = torch.cat([ids[:, :1], chosen[:, :-1]], dim=1)
    output = model(input_ids=ids, labels=labels, supervised_loss=True)
    assert int(output.correct) == int(output.count) == 11


def test_without_the_flag_the_model_is_as_it_was(model) -> None:
    ids = torch.arange(12).reshape(1, 12)
    output = model(input_ids=ids, labels=ids)
    assert output.logits.shape == (1, 12, 97)
    assert engine.agrees(model, list(range(12)), list(range(12)))


@pytest.mark.parametrize("first", [0, 5, 700, 990])
def test_of_a_long_example_a_part_is_compared(model, first: int) -> None:
    """The model's own loss makes logits of every token, which may be more memory than the training takes."""
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    ids = [place % 97 for place in range(1000)]
    assert engine.agrees(model, ids, [-100] * first + ids[first:])
    hook.remove()
    assert len(lengths) == 2 and max(lengths) <= 256


def test_a_head_with_a_scale_of_its_own_keeps_the_librarys_loss() -> None:
    gemma = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=30.0))
    assert not engine.attach(gemma)
    assert gemma(torch.arange(4).reshape(1, 4)).logits.shape == (1, 4, 97)


def test_a_head_that_only_looks_plain_is_noticed(model, monkeypatch) -> None:
    head = model.get_output_embeddings()
    other = torch.nn.Linear(32, 97)
    other.weight.data *= 20
    monkeypatch.setattr(model, "get_output_embeddings", lambda: other)
    assert not engine.agrees(model, list(range(12)), list(range(12)))
    assert head is not None
