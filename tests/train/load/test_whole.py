"""Checkpoints and adapters that are not whole, or not of this model: no weight is ever a random number in silence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from studio.data.prepare.units import Encoded
from studio.errors import InputError
from studio.settings import Settings
from studio.train import checks
from studio.train.load.pretrained import load_adapter, load_whole
from tests.models.tiny import save_tiny
from tests.train.checks.test_checks import refusals

WIDTHS = {
    "vocab_size": 4096, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def change(folder: Path, name: str = "config.json", **values: Any) -> Path:
    """Set keys of a JSON file; None takes one out."""
    file = folder / name
    kept = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    return folder


def rewrite(folder: Path, change_names: Any, file: str = "model.safetensors") -> Path:
    """Give the weights other names; one whose new name is None is left out."""
    weights = load_file(folder / file)
    save_file(
        {new: one for old, one in weights.items() if (new := change_names(old)) is not None}, folder / file,
        metadata={"format": "pt"},
    )  # fmt: skip
    return folder


def said(sets: dict[str, Any], model: Path, settings: Settings, **raw: Any) -> str:
    return " | ".join(error.sentence for error in refusals(sets, model, settings, **raw))


# ---- checkpoints


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_weights_of_a_wrapped_model_are_refused(model, settings, prefix) -> None:
    rewrite(model, lambda name: prefix + name)
    assert f"every weight name begins with '{prefix}'" in said({}, model, settings)


@pytest.mark.parametrize(
    ("lost", "part"),
    [
        ("layers.1.mlp.down_proj", "block 1 has no down_proj"),
        ("layers.1.", "there is no block 1"),
        ("embed_tokens", "no embedding"),
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused(model, settings, lost, part) -> None:
    rewrite(model, lambda name: None if lost in name else name)
    assert part in said({}, model, settings)
    with pytest.raises(
        InputError, match=r"model\.path.*not in its files, first model\..*would be randomly initialized"
    ):
        load_whole(AutoModelForCausalLM, model, "model.path")


def test_what_no_header_tells_is_seen_when_it_is_loaded(model, settings) -> None:
    rewrite(model, lambda name: None if name == "model.norm.weight" else name)
    with pytest.raises(InputError, match=r"1 of the model's weights are not in its files, first model\.norm\.weight"):
        load_whole(AutoModelForCausalLM, model, "model.path")
    with pytest.raises(InputError, match=r"first model\.norm\.weight"):
        load_whole(AutoModelForSequenceClassification, model, "model.path", new_head=True, num_labels=1)


def test_only_a_new_head_may_be_new(tiny) -> None:
    kind = AutoModelForSequenceClassification
    assert load_whole(kind, tiny, "model.path", new_head=True, num_labels=1).score.weight.shape == (1, 32)
    with pytest.raises(InputError, match=r"method\.reward_model: .*score\.weight"):
        load_whole(kind, tiny, "method.reward_model", num_labels=1)


@pytest.mark.parametrize("tuning", ["full", "lora", "qlora", "dora"])
@pytest.mark.parametrize("kind", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8"])
def test_a_quantised_checkpoint_is_refused_for_every_tuning(tiny, settings, tuning, kind) -> None:
    words = said({"tuning.name": tuning}, tiny, settings, quantization_config={"quant_method": kind})
    assert f"already quantized ({kind})" in words


def test_a_checkpoint_that_says_it_is_not_quantised_is_not(tiny, settings) -> None:
    assert said({"tuning.name": "qlora"}, tiny, settings, quantization_config=None) == ""


# ---- tokenizers


def test_a_tokenizer_without_an_end_is_refused(model, settings) -> None:
    change(model, "tokenizer_config.json", eos_token=None, pad_token=None)
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    assert "has neither an eos_token nor a pad_token" in said({}, model, settings)
    with pytest.raises(InputError, match="eos_token"):
        checks.require_rows(AutoTokenizer.from_pretrained(model), [], 4096, model)
    change(model, "tokenizer_config.json", eos_token="<|im_end|>")
    assert said({}, model, settings) == ""


def test_a_token_without_a_row_is_refused(model, settings) -> None:
    added = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    change(model, "tokenizer.json", added_tokens=[*added, {**added[0], "id": 4096, "content": "<extra>"}])
    assert said({}, model, settings) == "", "a token that nobody uses does no harm"
    tokenizer = AutoTokenizer.from_pretrained(model)
    row = Encoded([5, 4096], [-100, 4096], 1, "rows.jsonl")
    with pytest.raises(
        InputError, match=r"'<extra>' in the data is token 4,096, but the model's embedding has only 4,096"
    ):
        checks.require_rows(tokenizer, [row], 4096, model)
    checks.require_rows(tokenizer, [replace(row, input_ids=[5, 4095])], 4096, model)
    change(model, "tokenizer_config.json", pad_token="<extra>")
    assert "'<extra>', used for padding, is token 4,096" in said({}, model, settings)
    with pytest.raises(InputError, match="the padding token is token 4,096"):
        checks.require_rows(AutoTokenizer.from_pretrained(model), [], 4096, model)


# ---- adapters


def save_adapter(folder: Path, task: str = "CAUSAL_LM", base: dict[str, Any] | None = None, **options: Any) -> Path:
    """Write an adapter over a random Llama of these widths."""
    config = LlamaConfig(**{**WIDTHS, **(base or {})})
    plain = LlamaForSequenceClassification(config) if task == "SEQ_CLS" else LlamaForCausalLM(config)
    get_peft_model(
        plain, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": task, **options})
    ).save_pretrained(folder)
    return folder


def test_an_adapter_of_this_base_is_taken(tiny, settings, tmp_path) -> None:
    for number, options in enumerate(
        ({}, {"rank_pattern": {"q_proj": 2}}, {"layers_to_transform": [1], "target_modules": ["q_proj"]},
         {"target_modules": r".*\.(q|v)_proj"}, {"modules_to_save": ["lm_head"]}, {"use_rslora": True})
    ):  # fmt: skip
        folder = save_adapter(tmp_path / str(number), **options)
        assert said({"tuning.adapter": str(folder)}, tiny, settings) == "", options
        load_adapter(AutoModelForCausalLM.from_pretrained(tiny), folder, "tuning.adapter")
    scorer = save_adapter(tmp_path / "scorer", "SEQ_CLS", {"num_labels": 1})
    assert said({"tuning.adapter": str(scorer), "method.name": "reward"}, tiny, settings) == ""


@pytest.mark.parametrize(
    "kind", ["gpt2", "gpt_neox", "falcon", "phi3", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"]
)
def test_an_adapter_of_every_kind_of_layer_is_taken(tiny, settings, tmp_path, kind) -> None:
    base = save_tiny(tmp_path / kind, kind)
    for file in tiny.glob("*token*"):
        shutil.copy(file, base)
    change(base, vocab_size=128)
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    tuned.save_pretrained(tmp_path / "adapter")
    sets = {"tuning.adapter": str(tmp_path / "adapter"), "tuning.rank": 2}
    assert "tuning.adapter" not in said(sets, base, settings)
    load_adapter(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter", "tuning.adapter")


# (the base that the adapter was made for, changes of its config, a part of the sentence)
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"num_hidden_layers": 4}, {}, "the adapter has a block 2, but the model has 2"),
    ({"hidden_size": 64}, {}, "maps 64 to 64 features"),
    ({}, {"r": 2}, "has rank 2 for model.layers.0.mlp.down_proj, but its weights have 4"),
    ({}, {"rank_pattern": {"v_proj": 2}}, "has rank 2 for model.layers.0.self_attn.v_proj"),
    ({}, {"target_modules": ["q_proj"]}, "lacks model.layers.0.mlp.down_proj"),
    ({}, {"target_modules": ".*nothing"}, "lacks model.layers.0.mlp.down_proj"),
    ({}, {"target_modules": "("}, "is not a regular expression"),
    ({}, {"target_modules": None}, "lacks model.layers.0.mlp.down_proj"),
    ({}, {"peft_type": "IA3"}, "adapters of type IA3"),
]


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("base", "config", "part"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_an_adapter_of_another_base_is_refused(tiny, settings, tmp_path, base, config, part, merged) -> None:
    folder = change(save_adapter(tmp_path / "adapter", base=base), "adapter_config.json", **config)
    assert part in said({"tuning.adapter": str(folder), "tuning.merge_adapter": merged}, tiny, settings)


def test_an_adapter_whose_file_is_broken_is_refused(tiny, settings, tmp_path) -> None:
    file = save_adapter(tmp_path / "adapter") / "adapter_model.safetensors"
    whole = file.read_bytes()
    for spoiled in (b"", whole[:-50], whole[:100]):
        file.write_bytes(spoiled)
        assert "tuning.adapter" in (words := said({"tuning.adapter": str(file.parent)}, tiny, settings))
        assert "Copy the adapter again" in words


def test_an_adapter_without_its_whole_layer_is_refused(tiny, settings, tmp_path) -> None:
    folder = save_adapter(tmp_path / "adapter", modules_to_save=["lm_head"])
    rewrite(folder, lambda name: None if "lm_head" in name else name, "adapter_model.safetensors")
    assert "lacks lm_head" in said({"tuning.adapter": str(folder)}, tiny, settings)


def test_an_adapter_that_does_not_fit_is_seen_when_it_is_loaded(tiny, tmp_path) -> None:
    folder, lost = save_adapter(tmp_path / "adapter"), "layers.1.self_attn.q_proj.lora_B"
    rewrite(folder, lambda name: None if lost in name else name, "adapter_model.safetensors")
    with pytest.raises(InputError, match=rf"1 of the adapter's weights do not fit the model, first .*{lost}"):
        load_adapter(AutoModelForCausalLM.from_pretrained(tiny), folder, "tuning.adapter")


@pytest.mark.parametrize(
    ("made", "sets", "option", "part"),
    [
        ({}, {"tuning.name": "dora"}, "tuning.name", "has no DoRA magnitudes"),
        ({"use_dora": True}, {"tuning.name": "lora"}, "tuning.name", "has DoRA magnitudes"),
        ({"use_dora": True}, {"tuning.name": "qlora"}, "tuning.dora", "has DoRA magnitudes"),
        ({"use_dora": True}, {"tuning.name": "qlora", "tuning.bits": "8", "tuning.dora": True}, "tuning.dora", "8-bit"),
        ({}, {"tuning.modules_to_save": "lm_head"}, "tuning.modules_to_save", "no fully trained lm_head"),
        ({}, {"tuning.rslora": True}, "tuning.rslora", "trained without rsLoRA"),
        ({}, {"tuning.dropout": 0.1}, "tuning.dropout", "keeps its dropout"),
        ({}, {"tuning.alpha": 64}, "tuning.alpha", "alpha 8 at rank 4"),
        ({}, {"method.name": "reward"}, "tuning.adapter", "a language-model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_adapter_lacks_cannot_be_gone_on_with(tiny, settings, tmp_path, made, sets, option, part) -> None:
    folder = save_adapter(tmp_path / "adapter", **made)
    (error,) = refusals({"tuning.adapter": str(folder), **sets}, tiny, settings)
    assert part in error.sentence and error.where.startswith(option)
    if sets.get("tuning.name") != "qlora" and "method.name" not in sets:
        anew = {"tuning.adapter": str(folder), "tuning.merge_adapter": True, **sets}
        assert said(anew, tiny, settings) == "", "the remedy that the sentence names"


def test_the_strength_that_an_adapter_has_may_be_said(tiny, settings, tmp_path) -> None:
    folder = str(save_adapter(tmp_path / "adapter"))
    assert said({"tuning.adapter": folder, "tuning.rank": 4, "tuning.alpha": 8}, tiny, settings) == ""


def test_a_folder_beside_the_working_directory_is_found(tiny, settings, tmp_path, monkeypatch) -> None:
    save_adapter(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    assert said({"tuning.adapter": "./adapter"}, tiny, settings) == ""
    assert "Write ./adapter for the folder" in said({"tuning.adapter": "adapter"}, tiny, settings)


# ---- what is trained whole, and mixtures of experts


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("gpt2", "wte, lm_head", "embed_tokens"),
        ("gpt_neox", "embed_in, lm_head", "embed_out"),
        ("falcon", "word_embeddings, lm_head", "embed_tokens"),
        ("llama", "embed_tokens, lm_head", "wte"),
    ],
)
def test_what_is_trained_whole_has_the_models_own_name(settings, tmp_path, kind, right, wrong) -> None:
    folder = save_tiny(tmp_path, kind)
    assert said({"tuning.modules_to_save": right, "tuning.rank": 2}, folder, settings) == ""
    words = said({"tuning.modules_to_save": wrong, "tuning.rank": 2}, folder, settings)
    assert f"no layer '{wrong}'" in words and all(name.strip() in words for name in right.split(","))
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = LoraConfig(r=2, target_modules="all-linear", modules_to_save=[name.strip() for name in right.split(",")])
    tuned = get_peft_model(model, config)
    whole = {name.partition(".modules_to_save")[0] for name, _ in tuned.named_parameters() if "modules_to_save" in name}
    assert {name.rpartition(".")[2] for name in whole} == set(config.modules_to_save), "and PEFT finds them"


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v3"])
@pytest.mark.parametrize(
    "sets",
    [
        {"tuning.init": "pissa"},
        {"tuning.init": "olora"},
        {"tuning.init": "orthogonal"},
        {"tuning.dropout": 0.1},
        {"tuning.name": "dora"},
        {"tuning.name": "qlora", "tuning.dora": True},
        {"tuning.name": "qlora", "tuning.dropout": 0.1},
    ],
)
def test_experts_take_plain_adapters_only(settings, tmp_path, kind, sets) -> None:
    folder = save_tiny(tmp_path, kind)
    (error,) = refusals({"tuning.rank": 4, **sets}, folder, settings)
    assert "on the experts of this model" in error.what and "attention layers (q_" in error.fix
    named = error.fix.partition("(")[2].partition(")")[0]
    assert said({"tuning.rank": 4, "tuning.target_modules": named, **sets}, folder, settings) == ""


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_layer_with_fewer_directions_than_the_rank_is_refused(settings, tmp_path, init) -> None:
    folder = save_tiny(tmp_path, "qwen2_moe")
    sets = {"tuning.rank": 4, "tuning.init": init}
    assert "shared_expert_gate has fewer" in said(sets, folder, settings)
    assert said({**sets, "tuning.target_modules": "q_proj, up_proj"}, folder, settings) == ""


# ---- reward models


def save_scorer(folder: Path, **widths: Any) -> Path:
    torch.manual_seed(0)
    LlamaForSequenceClassification(LlamaConfig(**{**WIDTHS, "num_labels": 1, **widths})).save_pretrained(folder)
    return folder


def test_a_reward_model_has_one_label(tiny, settings, tmp_path) -> None:
    def ppo(folder: Path) -> str:
        sets = {"method.name": "ppo", "method.rewards": "model", "method.reward_model": str(folder)}
        return said(sets, tiny, settings)

    assert ppo(save_scorer(tmp_path / "one")) == ""
    assert "has 3 labels" in ppo(three := save_scorer(tmp_path / "three", num_labels=3))
    assert "has 3 labels" in said({"method.name": "reward"}, three, settings)
    headless = rewrite(save_scorer(tmp_path / "none"), lambda name: None if "score" in name else name)
    assert "no score head" in ppo(headless)
    assert "token ids end at 299, but this model's tokenizer has ids up to 4,095" in ppo(
        save_scorer(tmp_path / "small", vocab_size=300)
    )
    wide = save_adapter(tmp_path / "wide", "SEQ_CLS", {"hidden_size": 64, "num_labels": 1})
    assert "maps 64 to 64 features" in ppo(wide)
    labels = save_adapter(tmp_path / "labels", "SEQ_CLS", {"num_labels": 3})
    assert "a score head of shape (1, 32)" in ppo(labels)
