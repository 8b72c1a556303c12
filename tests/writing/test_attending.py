"""Attention of a next token: where it is the studio's own, where torch's, and that a model is as before afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.kernels.calls import Kernels
from studio.writing import attending
from studio.writing.attending import for_writing
from studio.writing.quick import quicker
from tests.writing.test_quick import continuations, made, prompts


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each next token of a layer that was ours: whether there was a mask."""
    calls: list[bool] = []
    own = Kernels.next_token

    def counted(self: Kernels, q: Any, k: Any, v: Any, seen: Any, scale: float) -> torch.Tensor:
        calls.append(seen is not None)
        return own(self, q, k, v, seen, scale)

    monkeypatch.setattr(Kernels, "next_token", counted)
    return calls


def test_writing_uses_it_with_padding_and_without(attended: list[bool]) -> None:
    model, before = made(), made().config._attn_implementation
    padded = prompts()
    whole = {name: one[6:8] for name, one in padded.items()}
    for given in (padded, whole):
        theirs, _ = continuations(model, given, do_sample=False)
        assert attended == []
        with quicker(model):
            ours, _ = continuations(model, given, do_sample=False)
        assert torch.equal(ours, theirs)
        assert len(attended) > 20 and set(attended) == {given is padded}
        attended.clear()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("change", ["eager", "no code", "gradients", "prompts"])
def test_what_stays_torchs(change: str, attended: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    if change == "eager":
        model.set_attn_implementation("eager")
    if change == "no code":
        monkeypatch.setattr(attending, "built", lambda: None)
    before, given = model.config._attn_implementation, prompts()
    single = {name: one[:1, -1:] for name, one in given.items()}
    with torch.set_grad_enabled(change == "gradients"):
        wanted = model(**(given if change != "gradients" else single)).logits
        with for_writing(model):
            found = model(**(given if change != "gradients" else single)).logits
            if change in ("eager", "no code"):
                continuations(model, given, do_sample=False)
    assert attended == []
    assert torch.equal(found, wanted)
    assert model.config._attn_implementation == before


def test_a_number_format_that_it_does_not_know(attended: list[bool]) -> None:
    model = made().to(torch.float64)
    with quicker(model):
        continuations(model, prompts(), do_sample=False)
    assert attended == []
    with quicker(model.to(torch.bfloat16)):
        continuations(model, prompts(), do_sample=False)
    assert attended


def test_heads_of_values_may_have_another_size(attended: list[bool]) -> None:
    options: dict[str, Any] = {
        "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
        "v_head_dim": 24, "first_k_dense_replace": 2, "moe_intermediate_size": 32, "n_routed_experts": 4,
        "n_shared_experts": 1, "num_experts_per_tok": 2,
    }  # fmt: skip
    model = made("deepseek_v2", **options)
    theirs, _ = continuations(model, prompts(), do_sample=False)
    with quicker(model):
        ours, _ = continuations(model, prompts(), do_sample=False)
    assert torch.equal(ours, theirs)
    assert attended
