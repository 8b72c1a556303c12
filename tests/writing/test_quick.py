"""The quick loop writes what transformers' own writes: the same tokens in float32, for any settings and any family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from studio.writing import loop, quick
from studio.writing.quick import quicker, rows_at_once
from tests.support.everyday import everyday

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4}
_LATENT = {
    **_EXPERTS, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
# What each family's class keeps is plain keys and values, or something else for which transformers' loop goes on.
QUICK: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {"sliding_window": None}, "qwen2": {"use_sliding_window": False}, "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 8}, "gpt2": {}, "olmo2": {}, "granite": {}, "smollm3": {}, "starcoder2": {}, "stablelm": {},
    "gpt_neox": {}, "glm": {"head_dim": 8}, "mixtral": _EXPERTS, "deepseek_v2": {**_LATENT, "q_lora_rank": None},
    "deepseek_v3": {**_LATENT, "q_lora_rank": 16, "n_group": 2, "topk_group": 1},
}  # fmt: skip
OTHER: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8}, "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8}, "mamba": {}, "falcon_mamba": {}, "bloom": {}, "phi3": {},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1]},
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "drawn": {"do_sample": True, "temperature": 0.7, "top_k": 0},
    "of the likeliest": {"do_sample": True, "temperature": 1.3, "top_k": 9, "top_p": 0.8, "min_p": 0.01},
    "at least so many": {"do_sample": False, "min_new_tokens": 6, "suppress_tokens": [5, 6]},
    "penalty": {"do_sample": True, "top_k": 0, "repetition_penalty": 1.7},
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the quick loop was given, call by call."""
    counts: list[int] = []

    def counted(how: loop.Writing, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counts.append(len(ids))
        return loop.write(how, ids, mask)

    monkeypatch.setattr(quick, "write", counted)
    return counts


def made(family: str = "llama", **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:  # logits far from each other, so that rounding chooses nothing
            weight.data.normal_(0, 3 / weight.shape[-1] ** 0.5)
    return model


def adapted(model: Any, **options: Any) -> Any:
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    )
    model = get_peft_model(model, config).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    return model


def prompts(share: int = 0) -> dict[str, torch.Tensor]:
    """Prompts padded on the left: of many lengths, two of them equal, all with the same beginning."""
    generator = torch.Generator().manual_seed(5)
    lengths = [9, 4, 9, 1, 7, 7, 12, 12, 3, 5]
    ids = torch.zeros(len(lengths), share + max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    first = torch.randint(3, 97, (share,), generator=generator)
    for row, length in enumerate(lengths):
        ids[row, -length - share :] = torch.cat([first, torch.randint(3, 97, (length,), generator=generator)])
        mask[row, -length - share :] = 1
    ids[7] = ids[6]
    return {"input_ids": ids, "attention_mask": mask}


def continuations(model: Any, given: dict[str, torch.Tensor], **settings: Any) -> tuple[torch.Tensor, float]:
    """What the model writes, and a number drawn afterwards."""
    torch.manual_seed(3)
    return model.generate(**given, **{"max_new_tokens": 24, **settings}), float(torch.rand(()))


def same(model: Any, given: dict[str, torch.Tensor], **settings: Any) -> torch.Tensor:
    """Assert that it writes the same quickly, from the same random numbers."""
    theirs, later = continuations(model, given, **settings)
    with quicker(model):
        ours, after = continuations(model, given, **settings)
    assert torch.equal(theirs, ours)
    assert later == after
    return ours


@pytest.mark.parametrize("family", everyday(QUICK, "llama", "qwen3", "gemma", "gpt2", "gpt_neox", "deepseek_v3"))
def test_a_family_writes_the_same(family: str, written: list[int]) -> None:
    model = made(family, **QUICK[family])
    same(model, prompts(), eos_token_id=[2, 11, 17, 23])
    same(model, prompts(share=20), eos_token_id=None)
    assert written == [10, 10]


@pytest.mark.parametrize("family", everyday(OTHER, "mistral", "gemma2", "mamba", "bloom", "phi3"))
def test_a_family_that_keeps_something_else_is_left_to_transformers(family: str, written: list[int]) -> None:
    model = made(family, **OTHER[family])
    same(model, prompts(), eos_token_id=[2, 11])
    assert written == []
    assert rows_at_once(model, 100) == quick.FEW_ROWS


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_kept_and_numbers_drawn_alike(name: str, written: list[int]) -> None:
    """Rows end at different tokens: half of the vocabulary ends an answer."""
    model = made()
    ours = same(model, prompts(), eos_token_id=list(range(2, 97, 7)), **SETTINGS[name])
    ended = torch.isin(ours[:, 12:], torch.tensor(range(2, 97, 7))).int().argmax(1)
    assert len(set(ended.tolist())) > 2, "rows that all end together show nothing"
    same(model, prompts(share=20), eos_token_id=[2], **SETTINGS[name])
    same(model, {"input_ids": torch.tensor([[5, 6, 7]])}, **SETTINGS[name])
    assert len(written) == 3


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 30.0])
def test_numbers_are_drawn_as_torch_draws_them(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    likely = torch.softmax(torch.randn(6, 5000, generator=generator) * spread, -1)
    likely[:, 100:200] = 0
    torch.manual_seed(4)
    theirs = [torch.multinomial(likely, 1)[:, 0] for _ in range(40)]
    state = torch.get_rng_state()
    for rows in (torch.arange(6), torch.tensor([1, 4])):
        torch.manual_seed(4)
        ours = [loop.draw(likely[rows], rows, 6) for _ in range(40)]
        assert torch.equal(torch.stack(ours), torch.stack(theirs)[:, rows])
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("theirs", [False, True], ids=["quick", "transformers"])
def test_rows_have_the_same_tokens_whoever_writes_them(theirs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either loop, and where a part is done before the other."""
    model = made()
    monkeypatch.setattr(quick, "drops", lambda inner: theirs)
    inputs, options = prompts(), {"do_sample": True, "max_new_tokens": 24, "pad_token_id": 0, "top_k": 0}
    ends = list(range(2, 97, 7))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with quicker(model):
        whole = model.generate(**inputs, eos_token_id=ends, **options)[:, inputs["input_ids"].shape[1] :]
    after = torch.get_rng_state()
    parts = []
    for rows in (torch.arange(1), torch.arange(1, len(whole))):
        places = loop.Places(rows, len(whole), torch.Generator())
        places.generator.set_state(state)
        own = {name: one[rows] for name, one in inputs.items()}
        with quicker(model, places):
            text = model.generate(**own, eos_token_id=ends, **options)[:, inputs["input_ids"].shape[1] :]
        parts.append((places, text))
    steps = max(places.steps for places, _ in parts)
    assert min(places.steps for places, _ in parts) < steps, "one ends before the other"
    for places, text in parts:
        assert torch.equal(text, whole[places.rows, : text.shape[1]])
        assert bool((whole[places.rows, text.shape[1] :] == 0).all())
        places.catch_up(steps, places.width)
        assert torch.equal(places.generator.get_state(), after)


def test_what_cannot_be_drawn_from_is_torchs_error() -> None:
    with pytest.raises(RuntimeError, match="inf"):
        loop.draw(torch.tensor([[0.5, float("nan")]]), torch.arange(1), 1)


@pytest.mark.parametrize("name", ["greedy", "at least so many", "drawn", "penalty"])
def test_many_rows_are_written_as_two_halves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a row is chosen by itself; random numbers are drawn for all rows in one order."""
    sizes: list[int] = []
    whole = loop._write

    def counted(how: loop.Writing, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        return whole(how, ids, mask)

    monkeypatch.setattr(loop, "_write", counted)
    monkeypatch.setattr(loop, "HALF_ROWS", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    model = adapted(made())
    given = {part: one[:9] for part, one in prompts(share=3).items()}
    same(model, given, eos_token_id=list(range(2, 97, 9)), **SETTINGS[name])
    assert sizes in ([5, 4], [4, 5]) if name in ("greedy", "at least so many") else sizes == [9]
    with torch.autocast("cpu", dtype=torch.bfloat16), quicker(model):
        model.generate(**given, max_new_tokens=3, do_sample=False)


def test_settings_of_the_model_itself_are_kept(written: list[int]) -> None:
    model = made()
    model.generation_config.repetition_penalty = 1.9
    model.generation_config.eos_token_id = [2, 40]
    same(model, prompts(), do_sample=False)
    assert written == [10]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 2}, {"return_dict_in_generate": True, "output_scores": True}, {"max_time": 60.0},
        {"prefill_chunk_size": 4}, {"use_cache": False}, {"cache_implementation": "static"},
    ],
    ids=lambda one: next(iter(one)),
)  # fmt: skip
def test_what_the_loop_does_not_know_is_left_to_transformers(settings: dict[str, Any], written: list[int]) -> None:
    model = made()
    given = {"max_new_tokens": 6, "do_sample": False, **settings}
    theirs = model.generate(**prompts(), **given)
    with quicker(model):
        ours = model.generate(**prompts(), **given)
    assert torch.equal(*(getattr(one, "sequences", one) for one in (theirs, ours)))
    assert written == []


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True, "target_modules": ["q_proj", "down_proj"]}, {"use_dora": True}, {"lora_bias": True}],
    ids=["lora", "some layers", "dora", "bias"],
)  # fmt: skip
def test_an_adapter_writes_the_same_and_is_not_touched(options: dict[str, Any], written: list[int]) -> None:
    model = adapted(made(), **options)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with_it = same(model, prompts(), eos_token_id=[2, 11])
    with model.disable_adapter():
        without = same(model, prompts(), eos_token_id=[2, 11])
    assert not torch.equal(with_it, without)
    assert written == [10, 10]
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_was_put_in_place_of_a_layer_is_there_again() -> None:
    """As the fused kernels are, in a training."""
    model = adapted(made())
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    fused = layer.forward
    layer.forward = lambda x: fused(x) + 0
    kept = layer.forward
    with quicker(model):
        assert layer.forward is not kept
    assert layer.forward is kept
    assert "generate" not in vars(model.get_base_model())


def test_attention_made_for_a_training_is_torchs_meanwhile(written: list[int]) -> None:
    model = made()
    seen: list[str] = []

    def attend(*args: Any, **options: Any) -> Any:
        seen.append("ours")
        return ALL_ATTENTION_FUNCTIONS["sdpa"](*args, **options)

    AttentionInterface.register("made_for_a_test", attend)
    AttentionMaskInterface.register("made_for_a_test", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation("made_for_a_test")
    with quicker(model):
        model.generate(**prompts(), max_new_tokens=3)
        assert not seen
    assert model.config._attn_implementation == "made_for_a_test"
    same(model, prompts())
    assert seen and written == [10, 10]


def test_dropout_of_a_training_is_left_in_it(written: list[int]) -> None:
    model = adapted(made(), lora_dropout=0.5).train()
    same(model, prompts(), do_sample=True, top_k=0)
    assert written == []
    same(made().train(), prompts(), do_sample=True, top_k=0)
    same(made(attention_dropout=0.5).train(), prompts(), do_sample=True, top_k=0)
    assert written == [10]


def test_an_error_leaves_the_model_as_it_was() -> None:
    model = adapted(made())
    with pytest.raises(ZeroDivisionError), quicker(model):
        raise ZeroDivisionError
    assert "generate" not in vars(model.get_base_model())
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())


def test_in_bfloat16_a_model_is_as_near_to_the_exact_as_with_peft() -> None:
    """Both round; over many texts neither may be the worse by more than a tenth."""
    exact, rounded = adapted(made()), adapted(made().to(torch.bfloat16))
    ours = theirs = 0.0
    for seed in range(30):
        ids = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            wanted = exact(input_ids=ids).logits[:, -1]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                theirs += float((rounded(input_ids=ids).logits[:, -1].float() - wanted).square().sum())
                with quicker(rounded):
                    ours += float((rounded(input_ids=ids).logits[:, -1].float() - wanted).square().sum())
    assert 0 < ours < 1.1**2 * theirs


@contextmanager
def largest_product() -> Iterator[list[int]]:
    """The numbers of the largest tensor that a batched product was given."""
    with torch.profiler.profile(record_shapes=True) as profile:
        found: list[int] = []
        yield found
    for event in profile.events():
        if event.name in ("aten::bmm", "aten::expand"):
            found.extend(int(torch.Size(shape).numel()) for shape in event.input_shapes if shape)


def test_the_head_is_not_copied_for_each_row() -> None:
    """As torch 2.13 does by itself, and 2.15 no longer."""
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "vocab_size": 5000})).eval().requires_grad_(False)
    given, copied = prompts(), 5000 * 32 * 10
    with largest_product() as theirs:
        model(**given, logits_to_keep=1)
    with quicker(model), largest_product() as ours:
        model(**given, logits_to_keep=1)
    assert 0 < max(ours) < copied
    if Version(torch.__version__) < Version("2.14"):
        assert max(theirs) >= copied


def test_more_rows_are_written_at_once_where_they_take_little() -> None:
    model = made()
    each = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, size, bytes
    assert rows_at_once(model, 100) == quick.MANY_ROWS
    assert rows_at_once(model, quick.KEPT_BYTES // each // 50) == 50
    assert rows_at_once(model, quick.KEPT_BYTES) == quick.FEW_ROWS
