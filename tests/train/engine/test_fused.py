"""With the engine's layers a model gives what it gives without them, and they are only put where that is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from studio.kernels.calls import Kernels
from studio.train.engine import comparing, fused
from studio.train.engine.lora import Group, is_ours
from studio.train.tuning.qlora import keep_layout

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {"sliding_window": 16}, "qwen2": {"use_sliding_window": False}, "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 8}, "gemma2": {"head_dim": 8}, "gemma3_text": {"head_dim": 8, "sliding_window": 16},
    "phi3": {"pad_token_id": 0}, "olmo2": {}, "granite": {}, "smollm3": {"pad_token_id": 0}, "starcoder2": {},
    "stablelm": {}, "gpt_neox": {}, "falcon": {}, "glm": {"head_dim": 8, "pad_token_id": 0},
}  # fmt: skip


def learned(model: Any) -> Any:
    """Give every adapter values, as training would: B starts at zero, where nothing could go wrong."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape) * 0.1
    return model


def adapted(model: nn.Module, **options: Any) -> Any:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    return learned(get_peft_model(model, config)).train()


def answers(model: Any, autocast: bool, padded: bool = True) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits at real tokens and gradients, of a padded batch whose rows begin and end somewhere."""
    ids = torch.arange(120).reshape(3, 40) * 7 % 97
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 30:] = 0
        mask[1, :13] = 0
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()[mask.bool()]
    torch.manual_seed(2)
    (logits * torch.randn_like(logits)).sum().backward()
    return logits.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_same_with_them(kernels: Kernels, family: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    model = adapted(AutoModelForCausalLM.from_config(config))
    before = answers(model, autocast=False)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    after = answers(model, autocast=False)
    assert done.reason == ""
    assert bool(done.groups) is (family != "falcon")  # whose linear layers are of a class of its own
    assert done.rotary is (family != "glm")  # which turns neighbours, not halves
    assert before[1].keys() == after[1].keys()
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    for name, gradient in before[1].items():
        torch.testing.assert_close(after[1][name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def test_what_is_replaced_in_a_llama(kernels: Kernels) -> None:
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.reason == "" and done.segments and (done.norms, done.gates) == (5, 2)
    assert [len(group.layers) for group in done.groups] == [3, 1, 2, 1] * 2  # q k v, o, gate up, down


def test_a_model_with_a_score_leaves_padding_out(kernels: Kernels) -> None:
    """It reads the score at the last token that is not the padding's: so the batch that is tried must have that."""
    torch.manual_seed(0)
    base = LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1, pad_token_id=3))
    model = learned(get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS")))
    ids, mask = torch.arange(60).reshape(2, 30) + 5, torch.ones(2, 30, dtype=torch.long)
    ids[1, 20:], mask[1, 20:] = 3, 0
    before = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert (done.reason, done.unpadded, len(done.groups)) == ("", True, 8)
    after = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [False, True])
def test_dora(kernels: Kernels, autocast: bool, bias: bool) -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=bias)).to(torch.bfloat16 if autocast else torch.float32)
    model = adapted(base, use_dora=True)
    before = answers(model, autocast)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=autocast)
    assert (done.reason, len(done.groups), done.gates) == ("", 8, 2)
    after = answers(model, autocast)
    near = 5e-2 if autocast else 1e-4
    assert float((after[0] - before[0]).norm() / before[0].norm()) < near
    assert after[1].keys() == before[1].keys() and any("magnitude" in name for name in before[1])
    for kind in ("lora_A", "lora_B", "magnitude"):
        mine, theirs = (torch.cat([one.flatten() for name, one in found[1].items() if kind in name])
                        for found in (after, before))  # fmt: skip
        assert float((mine - theirs).norm() / theirs.norm()) < near, kind


@pytest.mark.parametrize("dora", [False, True])
def test_weights_in_4_bits(kernels: Kernels, tmp_path: Path, dora: bool) -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path)
    kind = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=kind, dtype=torch.float32)
    keep_layout(base)
    model = adapted(base, use_dora=dora)
    before = answers(model, autocast=False)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert (done.reason, len(done.groups), done.gates) == ("", 8, 2)
    after = answers(model, autocast=False)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    for name, gradient in before[1].items():
        torch.testing.assert_close(after[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_dropout_bias_and_rank_patterns(kernels: Kernels, autocast: bool) -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)).to(torch.bfloat16 if autocast else torch.float32)
    model = adapted(base, lora_dropout=0.3, use_rslora=True, rank_pattern={"q_proj": 7}, alpha_pattern={"v_proj": 3})
    torch.manual_seed(3)  # and no padding: what is dropped is drawn for each token that is computed
    before = answers(model, autocast, padded=False)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=autocast)
    assert (done.reason, len(done.groups), done.gates) == ("", 14, 0), "each layer drops others, and is a group"
    assert all(
        group.applies(torch.zeros(1, 3, 32, dtype=group.dtype))
        for group in done.groups
        if group.layers[0].in_features == 32
    )
    torch.manual_seed(3)
    after = answers(model, autocast, padded=False)
    near = 5e-2 if autocast else 1e-4
    assert float((after[0] - before[0]).norm() / before[0].norm()) < near
    whole = [torch.cat([one.flatten() for one in found[1].values()]) for found in (before, after)]
    assert float((whole[1] - whole[0]).norm() / whole[0].norm()) < near


@pytest.mark.parametrize("targets", [["gate_proj"], ["q_proj", "up_proj"], ["v_proj", "down_proj", "gate_proj"]])
def test_adapters_on_a_part_of_an_mlp(kernels: Kernels, targets: list[str]) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**SIZES)), config).train()
    before = answers(model, autocast=False)
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert (done.reason, len(done.groups), done.gates) == ("", 2 * len(targets), 0)
    after = answers(model, autocast=False)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    for name, gradient in before[1].items():
        torch.testing.assert_close(after[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)


def test_switched_off_or_merged_adapters_are_pefts(kernels: Kernels) -> None:
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        with model.disable_adapter():
            base = model(ids).logits
        tuned = model(ids).logits
        assert fused.attach(model, kernels, attention_is_free=True, autocast=False).reason == ""
        with model.disable_adapter():
            torch.testing.assert_close(model(ids).logits, base)
        model.merge_adapter()
        torch.testing.assert_close(model(ids).logits, tuned, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
        torch.testing.assert_close(model(ids).logits, tuned, rtol=1e-4, atol=1e-5)


def test_text_is_written_as_before(kernels: Kernels) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES))).eval()
    ids = torch.arange(24).reshape(2, 12) % 97
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    asked = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    before = model.generate(**asked)
    fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert torch.equal(model.generate(**asked), before)


def test_the_adapter_is_saved_as_peft_saves_it(kernels: Kernels, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    model.save_pretrained(tmp_path / "before")
    fused.attach(model, kernels, attention_is_free=True, autocast=False)
    model.save_pretrained(tmp_path / "after")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_activations_computed_twice_give_the_same(kernels: Kernels) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    fused.attach(model, kernels, attention_is_free=True, autocast=False)
    before = answers(model, autocast=False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    after = answers(model, autocast=False)
    for name, gradient in before[1].items():
        torch.testing.assert_close(after[1][name], gradient)


def test_all_is_undone_where_the_whole_disagrees(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    before = answers(model, autocast=False)
    wrong = Kernels.attention
    monkeypatch.setattr(Kernels, "attention", lambda self, q, *rest: wrong(self, q * 1.5, *rest))
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert "disagree" in done.reason and done.replaced() == ""
    after = answers(model, autocast=False)
    assert torch.equal(after[0], before[0]) and not any(
        "forward" in vars(one) for one in model.modules() if is_ours(one)
    )


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_model_that_cannot_be_tried_trains_as_it_is(kernels: Kernels, fails_at: int) -> None:
    """It fails when it is measured, when its layers are listed, or when it is measured again."""
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    before, calls = answers(model, autocast=False), []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) >= fails_at:
            raise RuntimeError("pixels are missing")

    hook = model.register_forward_pre_hook(fail)
    grads = [one.grad for one in model.parameters()]
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    hook.remove()
    assert len(calls) >= fails_at and done.replaced() == "" and "pixels are missing" in done.reason
    assert model.training and all(one.grad is had for one, had in zip(model.parameters(), grads, strict=True))
    assert not any("forward" in vars(one) or one._forward_pre_hooks for one in model.modules())
    after = answers(model, autocast=False)
    assert torch.equal(after[0], before[0]) and all(
        torch.equal(after[1][name], grad) for name, grad in before[1].items()
    )


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_a_reference_begins_with_the_numbers_of_the_policy(kernels: Kernels, autocast: bool) -> None:
    """With adapters that are still 0, to the bit: what is compared with it has not moved."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)).to(torch.bfloat16 if autocast else torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    assert fused.attach(model, kernels, attention_is_free=True, autocast=autocast).gates == 2
    asked = {"input_ids": torch.arange(20)[None], "use_cache": False}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        policy = model(**asked).logits
        with model.disable_adapter():
            assert torch.equal(model(**asked).logits, policy)
    frozen = LlamaForCausalLM(LlamaConfig(**SIZES)).requires_grad_(False)
    done = fused.attach(frozen, kernels, attention_is_free=True, autocast=False)
    assert (done.norms, done.unpadded, done.reason) == (5, True, "")


def test_padding_is_left_out_of_every_layer_but_not_of_what_comes_out(kernels: Kernels) -> None:
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    seen: list[int] = []
    decoder = model.get_base_model().model
    decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2].numel()))
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.unpadded and done.replaced().endswith("attention, no padding, shared prefixes")
    seen.clear()
    answers(model, autocast=False)
    answers(model, autocast=False, padded=False)
    assert seen == [120 - 10 - 13, 120]
    ids, mask = torch.arange(24).reshape(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[1, :4] = 0
    asked = {"input_ids": ids, "attention_mask": mask}
    states = decoder(**asked).last_hidden_state
    assert states.shape == (2, 12, 32) and not states[1, :4].any() and states[1, 4:].all(-1).all()
    seen.clear()
    for more in ({"use_cache": True}, {"output_hidden_states": True}, {"return_dict": False}):
        decoder(**asked, **more)  # whoever wants more of the batch gets it as it is
    decoder.eval()
    assert decoder(**asked).past_key_values is not None
    assert seen == [24] * 4
    decoder.train()
    model.set_attn_implementation("sdpa")  # as while answers are written
    decoder(**asked)
    assert seen == [24] * 5
    model.set_attn_implementation("studio_segments")
    decoder(**asked)
    assert seen == [24] * 5 + [20]
    done.detach()
    assert "forward" not in vars(decoder)


def test_padding_counts_as_left_out_only_where_the_head_lets_it_be(kernels: Kernels) -> None:
    """Both ways agree where the decoder is called in a way that is not known; the plan must not count on it."""

    class Renaming(LlamaForCausalLM):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **rest: Any) -> Any:
            states = self.model(input_ids, attention_mask).last_hidden_state
            return CausalLMOutputWithPast(logits=self.lm_head(states))

    torch.manual_seed(0)
    done = fused.attach(Renaming(LlamaConfig(**SIZES)), kernels, attention_is_free=True, autocast=False)
    assert done.segments and not done.unpadded and done.reason == ""


def test_a_decoder_that_mixes_rows_keeps_its_padding(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by what comes out where its layers are not known to mix, and by its layers where they are."""

    class Blurred(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x + nn.functional.pad(x, (0, 0, 1, 0))[:, :-1])

    def made() -> Any:
        torch.manual_seed(0)
        base = LlamaForCausalLM(LlamaConfig(**SIZES))
        base.model.norm = Blurred(base.model.norm)
        return adapted(base)

    done = fused.attach(made(), kernels, attention_is_free=True, autocast=False)
    assert done.segments and not done.unpadded and done.reason == ""
    mixing = made()
    mixing.get_base_model().model.layers[0].conv = nn.Conv1d(1, 1, 1)
    monkeypatch.setattr(fused.unpadded, "Unpadded", lambda _: pytest.fail("it has a layer that mixes tokens"))
    assert not fused.attach(mixing, kernels, attention_is_free=True, autocast=False).unpadded


def test_attention_with_dropout_keeps_joined_rows_apart(kernels: Kernels) -> None:
    """What is not ours to compute is torch's, over the same sequences."""
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=1e-9)))
    ids, positions = torch.arange(12)[None], torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    apart = [model(ids[:, :5]).logits[0], model(ids[:, 5:]).logits[0]]
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.segments and not done.unpadded
    joined = model(input_ids=ids, position_ids=positions).logits[0]
    torch.testing.assert_close(joined, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_layers_of_a_group_may_be_called_as_they_like() -> None:
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    attention = model.base_model.model.model.layers[0].self_attn
    layers = [attention.q_proj, attention.k_proj, attention.v_proj]
    x, other = torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    expected = [layer(one) for layer in layers for one in (x, other)]
    group = Group.of(layers)
    assert group is not None
    group.attach()
    found = [layer(one) for layer in layers for one in (x, other)]  # not as they are called in a model
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_scores_are_compared_by_the_states_that_they_are_made_of() -> None:
    """Two scores of nearly 0 are far from each other in bfloat16, whoever computes them; states are not."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_labels=1, pad_token_id=3)
    model = LlamaForSequenceClassification(config)
    batch = comparing.batch_of(model)
    states, slopes = comparing.measured(model, batch, model.base_model)
    assert states.shape == (int(batch["attention_mask"].sum()), config.hidden_size)
    scores, same = comparing.measured(model, batch, model)
    assert scores.shape == (2, 1)
    assert torch.equal(slopes, same)
    assert not model.base_model._forward_hooks
