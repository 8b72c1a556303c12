"""A prefix that rows share is computed once, and every row has what it had."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from studio.kernels.calls import Kernels, Segments
from studio.train.engine import attention, fused
from studio.train.engine.prefixes import prefixes
from tests.train.engine.test_fused import FAMILIES, SIZES, adapted


def line(segments: Segments, place: int) -> list[int]:
    """The tokens that are seen from a place, itself included."""
    at = next(n for n, start in enumerate(segments.starts) if start <= place < start + segments.lengths[n])
    seen = list(range(segments.starts[at], place + 1))
    while (at := segments.before[at]) >= 0:
        seen = [*range(segments.starts[at], segments.starts[at] + segments.lengths[at]), *seen]
    return seen


STARTS = st.sampled_from([[], [1] * 3, [1] * 20, [1] * 40, [2] * 35, [1] * 20 + [2] * 20])
ROWS = st.lists(
    st.builds(lambda *parts: [*chain(*parts)], STARTS, STARTS, st.lists(st.integers(0, 2), max_size=12)),
    min_size=1, max_size=9,
).filter(any)  # fmt: skip


@given(rows=ROWS)
def test_each_row_sees_itself(rows: list[list[int]]) -> None:
    found = prefixes(rows)
    tokens = torch.tensor([*chain(*rows)])
    computed = tokens[found.taken]
    assert torch.equal(computed[found.places], tokens)
    assert all(before < at for at, before in enumerate(found.segments.before))
    assert sum(found.segments.lengths) == len(computed) <= len(tokens) and min(found.segments.lengths) > 0
    begin = 0
    for row in rows:
        for length, place in enumerate(found.places[begin : begin + len(row)].tolist(), 1):
            assert computed[line(found.segments, place)].tolist() == row[:length]
        begin += len(row)


def test_what_is_worth_a_segment() -> None:
    system, prompt = [7] * 20, [8] * 40
    rows = [system + prompt + [1, 1], system + [9] * 5, system + prompt + [2]]
    found = prefixes(rows)
    assert found.segments.lengths == (20, 5, 40, 1, 2) and found.segments.before == (-1, 0, 0, 2, 2)
    assert len(found.taken) == sum(map(len, rows)) - 2 * 20 - 40
    # 16 tokens of two rows are not worth it, of three they are.
    few = [[7] * 16 + [place] for place in range(3)]
    assert prefixes(few[:2]).segments.before == (-1, -1) and prefixes(few).segments.before == (-1, 0, 0, 0)
    assert prefixes([system * 2, system * 2, []]).segments == Segments((0,), (40,), (-1,))  # equal rows are one


PROMPT = list(range(3, 47))
ALIKE = [[*PROMPT[:30], 50, 51, 52], [*PROMPT, 60, 61], [*PROMPT, *[62] * 12], [*PROMPT[:30], 70], [80] * 20]


def batch(rows: list[list[int]], padded_left: bool = False) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        place = slice(longest - len(row), None) if padded_left else slice(len(row))
        ids[at, place], mask[at, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def measured(model: Any, given: dict[str, torch.Tensor], autocast: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of real tokens, and all gradients, of a loss to which every token of every row adds."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(**given, use_cache=False).logits.float()[given["attention_mask"].bool()]
    torch.manual_seed(2)
    (logits * torch.randn_like(logits)).sum().backward()
    return logits.detach(), torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def watched(model: Any) -> list[int]:
    """How many tokens the first layer has computed, each time."""
    seen: list[int] = []
    layer = model.get_base_model().base_model.layers[0]
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2].numel()))
    return seen


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "glm", "phi3"])
def test_a_family_gives_the_same(kernels: Kernels, family: str, left: bool) -> None:
    torch.manual_seed(0)
    options = {**FAMILIES[family], **({"sliding_window": 512} if family == "gemma3_text" else {})}
    model = adapted(AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **options)))
    given = batch(ALIKE, left)
    seen = watched(model)
    before = measured(model, given)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.shared and done.replaced().endswith("no padding, shared prefixes")
    seen.clear()
    after = measured(model, given)
    # Padded on the left, rows of other lengths begin at other places: nothing is alike.
    assert seen == [sum(map(len, ALIKE)) - (0 if left else 3 * 30)]
    for mine, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_answers_to_one_prompt_share_it_wherever_they_begin(kernels: Kernels) -> None:
    """As in GRPO: prompts padded on the left, answers on the right; without padding, too."""
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    ids = torch.tensor([[*PROMPT, 50 + row, 60] for row in range(4)])
    mask = torch.ones_like(ids)
    plain = {"input_ids": ids, "attention_mask": mask}
    padded = {"input_ids": nn.functional.pad(ids, (5, 2)), "attention_mask": nn.functional.pad(mask, (5, 2))}
    before = [measured(model, given) for given in (plain, padded)]
    seen = watched(model)
    assert fused.attach(model, kernels, attention_is_free=True, autocast=False).shared
    seen.clear()
    after = [measured(model, given) for given in (plain, padded)]
    assert seen == [44 + 4 * 2] * 2
    for mine, theirs in zip(chain(*after), chain(*before), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_in_bfloat16_it_is_as_near_as_rows_by_themselves(kernels: Kernels) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16))
    before = measured(model, batch(ALIKE), autocast=True)
    assert fused.attach(model, kernels, attention_is_free=True, autocast=True).shared
    after = measured(model, batch(ALIKE), autocast=True)
    for mine, theirs in zip(after, before, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 2e-2


@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_that_are_computed_twice_see_their_prefix(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, reentrant: bool
) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    before = measured(model, batch(ALIKE))
    assert fused.attach(model, kernels, attention_is_free=True, autocast=False).shared
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    seen: list[int] = []
    own = Kernels.attention
    monkeypatch.setattr(Kernels, "attention", lambda *given: (seen.append(len(given[1])), own(*given))[1])
    after = measured(model, batch(ALIKE))
    assert seen == [sum(map(len, ALIKE)) - 3 * 30] * 4, "two layers, each of them twice"
    for mine, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("reason", ["dropout", "window", "noise", "embeddings"])
def test_rows_are_computed_by_themselves(kernels: Kernels, reason: str) -> None:
    """Where numbers are dropped for each row, a window ends within one, or tokens are not what the model is given.

    Noise on embeddings depends on the length of a row, so that is computed as it is, with its padding.
    """
    torch.manual_seed(0)
    window = {"sliding_window": 40} if reason == "window" else {}
    config = AutoConfig.for_model("mistral", **SIZES, **(window or {"sliding_window": None}))
    model = adapted(AutoModelForCausalLM.from_config(config), lora_dropout=0.5 if reason == "dropout" else 0.0)
    assert fused.attach(model, kernels, attention_is_free=True, autocast=False).unpadded
    seen, given = watched(model), batch(ALIKE)
    if reason == "noise":
        model.get_input_embeddings().neftune_noise_alpha = 5
    if reason == "embeddings":
        given["inputs_embeds"] = model.get_input_embeddings()(given.pop("input_ids")).detach()
    model(**given, use_cache=False)
    assert seen == [given["attention_mask"].numel() if reason == "noise" else sum(map(len, ALIKE))]
    seen.clear()
    model.eval()  # nothing is dropped, and nothing added
    model(**given, use_cache=False)
    alone = reason in ("window", "embeddings")
    assert seen == [sum(map(len, ALIKE)) - (0 if alone else 3 * 30)]


def test_torchs_attention_sees_the_same(kernels: Kernels) -> None:
    """As for heads of a size, or with dropout, that ours does not compute."""
    torch.manual_seed(0)
    found = prefixes(ALIKE)
    q, k, v = (torch.randn(1, heads, len(found.taken), 16) for heads in (4, 2, 2))
    flat = [one[0].transpose(0, 1).contiguous() for one in (q, k, v)]
    ours, _ = kernels.attention(*flat, found.segments, 0, 0.25)
    theirs = attention._plain(q, k, v, None, found.segments, 0, 0.25, 0.0)
    torch.testing.assert_close(ours, theirs[0], rtol=1e-4, atol=1e-5)
