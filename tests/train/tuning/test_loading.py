"""The options of an adapter do what they say, each in three steps on the tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
)

from tests.parity.made import reported
from tests.support.everyday import everyday
from tests.train.three_steps import (
    AT_START,
    RANK,
    SAME,
    adapter_config,
    adapter_of,
    layers_of,
    logits,
    plain,
    referring,
    run,
    tuned,
)

# ---- the adapter's shape and strength


def test_rslora_scales_by_the_root_of_the_rank(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path, {"rslora": True})
    assert adapter_config(context)["use_rslora"] is True
    scalings = {layer.scaling["default"] for layer in layers_of(tuned(tiny, context.job.model)).values()}
    assert scalings == {2 * RANK / math.sqrt(RANK)}


@pytest.mark.parametrize("tuning", everyday(["lora", "qlora"], "lora"))
def test_lora_plus_gives_b_the_larger_rate(settings, tiny, tmp_path, trainers, tuning) -> None:
    run(settings, tiny, tmp_path, {"name": tuning, "lora_plus_ratio": 16})
    names = {id(weight): name for name, weight in trainers[0].model.named_parameters()}
    rates = {
        names[id(weight)]: group["initial_lr"]
        for group in trainers[0].optimizer.param_groups
        for weight in group["params"]
    }
    assert len(rates) == 2 * 7 * 2, "both matrices of seven layers in two blocks"
    for name, rate in rates.items():
        assert rate == pytest.approx(16e-3 if "lora_B" in name else 1e-3), name


@pytest.mark.parametrize("init", everyday(["gaussian", "pissa", "olora", "orthogonal"], "pissa"))
def test_every_start_leaves_a_plain_adapter_over_the_unchanged_base(settings, tiny, tmp_path, trainers, init) -> None:
    context = run(settings, tiny, tmp_path, {"init": init})
    trained, saved = logits(trainers[0].model), logits(tuned(tiny, context.job.model))
    assert (saved - trained).abs().max() <= SAME
    assert (saved - logits(plain(tiny))).abs().max() > 10 * SAME, "it learned something"
    config = adapter_config(context)
    assert config["init_lora_weights"] in (True, init)
    assert config["r"] == (2 * RANK if init in ("pissa", "olora") else RANK)


def test_some_layers_have_other_ranks_and_alphas(settings, tiny, tmp_path) -> None:
    patterns = {"rank_pattern": "q_proj=2, mlp.down_proj=6", "alpha_pattern": "v_proj=32"}
    context = run(settings, tiny, tmp_path, patterns)
    for name, layer in layers_of(tuned(tiny, context.job.model)).items():
        rank = 2 if name.endswith("q_proj") else 6 if name.endswith("down_proj") else RANK
        assert layer.lora_A["default"].weight.shape[0] == rank, name
        alpha = 32 if name.endswith("v_proj") else 2 * RANK
        assert layer.scaling["default"] == alpha / rank, name


@pytest.mark.parametrize("tuning", everyday(["lora", "dora", "qlora"], "lora", "qlora"))
@pytest.mark.parametrize("targets", everyday(["all-linear", ["q_proj", "v_proj"]], ["q_proj", "v_proj"]))
def test_only_the_named_blocks_get_an_adapter(settings, tiny, tmp_path, tuning, targets) -> None:
    context = run(settings, tiny, tmp_path, {"name": tuning, "layers_to_transform": "1", "target_modules": targets})
    layers = {name.rpartition(".lora_")[0] for name in adapter_of(context)}
    assert all(".layers.1." in name for name in layers)
    assert len(layers) == (7 if targets == "all-linear" else 2)


@pytest.mark.parametrize("method", everyday(["sft", "dpo", "orpo", "kto", "grpo"], "dpo"))
def test_a_head_that_is_trained_whole_is_trained_and_saved(settings, tiny, tmp_path, trainers, method) -> None:
    options: dict[str, Any] = {"name": method}
    if method == "grpo":
        options |= {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8, "num_generations": 2}
    context = run(settings, tiny, tmp_path, {"modules_to_save": "lm_head"}, method=options)
    saved, before = adapter_of(context)["base_model.model.lm_head.weight"], plain(tiny).lm_head.weight
    assert (saved - before).abs().max() > 1e-4
    model = tuned(tiny, context.job.model)
    assert torch.equal(model.get_base_model().get_input_embeddings().weight, before), "the embedding keeps its weights"
    assert (logits(model) - logits(trainers[0].model)).abs().max() <= SAME


def test_an_embedding_that_is_trained_whole_is_trained_and_saved(settings, tiny, tmp_path, trainers) -> None:
    context = run(settings, tiny, tmp_path, {"modules_to_save": "lm_head, embed_tokens"})
    names = [name for name in adapter_of(context) if "lora_" not in name]
    assert sorted(name.rpartition("model.")[2] for name in names) == ["embed_tokens.weight", "lm_head.weight"]
    assert (logits(tuned(tiny, context.job.model)) - logits(trainers[0].model)).abs().max() <= SAME


# ---- an adapter that is there already

FIRST = {"validation": 0.25}


@pytest.mark.parametrize("tuning", everyday(["lora", "dora", "qlora"], "lora"))
def test_an_adapter_is_gone_on_with(settings, tiny, tmp_path, tuning) -> None:
    first = run(settings, tiny, tmp_path, {"name": tuning}, data=FIRST)
    second = run(
        settings, tiny, tmp_path, {"name": tuning, "rank": 8, "adapter": str(first.job.model)}, data=FIRST
    )  # fmt: skip
    assert reported(second, "eval_loss")[0] == pytest.approx(reported(first, "eval_loss")[-1], rel=1e-5)
    assert adapter_config(second)["r"] == RANK, "its rank is kept"
    assert f", rank {RANK})" in (second.job.model / "README.md").read_text(), "and the card says so"
    assert adapter_config(second)["use_dora"] == (tuning == "dora")
    before, after = adapter_of(first), adapter_of(second)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", everyday(["dpo", "kto", "orpo", "grpo"], "dpo"))
def test_preference_is_learned_on_top_of_an_adapter(settings, tiny, tmp_path, trainers, method) -> None:
    first = run(settings, tiny, tmp_path, {})
    options: dict[str, Any] = {"name": method, "beta": 0.1}
    if method == "grpo":
        options |= {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8, "num_generations": 2}
    second = run(settings, tiny, tmp_path, {"adapter": str(first.job.model)}, method=options)
    if method == "dpo":
        assert reported(second)[0] == pytest.approx(math.log(2), abs=1e-5), "its start is the reference"
    if method == "kto":
        assert reported(second)[0] == pytest.approx(0.5, abs=1e-5), "its start is the reference"
    frozen = {name: one for name, one in trainers[1].model.named_parameters() if ".ref." in name}
    assert bool(frozen) == (method != "orpo")
    assert not any(one.requires_grad for one in frozen.values())
    kept = adapter_of(first)
    for name, one in frozen.items():
        assert torch.equal(one.data, kept[name.replace(".ref", "")]), f"{name} is what it was"
    folders = [path.name for path in second.job.model.iterdir() if path.is_dir()]
    assert folders == [], "a single adapter is saved"
    assert kept.keys() == adapter_of(second).keys()
    assert (logits(tuned(tiny, second.job.model)) - logits(trainers[1].model)).abs().max() <= SAME


@pytest.mark.parametrize("tuning", everyday(["lora", "dora"], "lora"))
def test_a_new_adapter_stands_on_a_merged_one(settings, tiny, tmp_path, trainers, tuning) -> None:
    first = run(settings, tiny, tmp_path, {}, data=FIRST)
    merged = {"name": tuning, "rank": 8, "adapter": str(first.job.model), "merge_adapter": True}
    second = run(settings, tiny, tmp_path, merged, data=FIRST)
    base = second.job.path / "base"
    assert (logits(plain(base)) - logits(tuned(tiny, first.job.model))).abs().max() <= SAME
    assert reported(second, "eval_loss")[0] == pytest.approx(reported(first, "eval_loss")[-1], rel=1e-5)
    assert adapter_config(second)["r"] == 8
    assert Path(adapter_config(second)["base_model_name_or_path"]) == base
    assert (logits(tuned(base, second.job.model)) - logits(trainers[1].model)).abs().max() <= SAME
    assert (logits(tuned(tiny, first.job.model, second.job.model)) - logits(trainers[1].model)).abs().max() <= SAME


@pytest.mark.parametrize("merged", everyday([False, True], False))
def test_a_reward_model_is_gone_on_with(settings, tiny, tmp_path, merged) -> None:
    options: dict[str, Any] = {"method": {"name": "reward"}, "data": FIRST}
    first = run(settings, tiny, tmp_path, {}, training={"learning_rate": 1e-2}, **options)
    second = run(settings, tiny, tmp_path, {"adapter": str(first.job.model), "merge_adapter": merged}, **options)
    assert reported(second, "eval_loss")[0] == pytest.approx(reported(first, "eval_loss")[-1], rel=1e-5)
    assert adapter_config(second)["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize("init", everyday(["pissa", "olora"], "olora"))
@pytest.mark.parametrize("method", everyday(["sft", "reward", "dpo"], "sft"))
def test_a_start_in_the_base_saves_what_is_trained_whole_too(settings, tiny, tmp_path, trainers, init, method) -> None:
    tuning = {"init": init, **({} if method == "reward" else {"modules_to_save": "lm_head"})}
    context = run(settings, tiny, tmp_path, tuning, method={"name": method})
    if method == "reward":
        plain_ = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
        saved = PeftModel.from_pretrained(plain_, context.job.model)
        saved.config.pad_token_id = trainers[0].model.config.pad_token_id
    else:
        saved = tuned(tiny, context.job.model)
    assert (logits(saved) - logits(trainers[0].model)).abs().max() <= SAME


@pytest.mark.parametrize("init", everyday(["pissa", "olora"], "pissa"))
@pytest.mark.parametrize("method", everyday(AT_START, "dpo"))
def test_a_start_in_the_base_is_the_reference(settings, tiny, tmp_path, trainers, init, method) -> None:
    """Without its adapter such a base is not the model that training began with."""
    context = run(settings, tiny, tmp_path, {"init": init, "rank": 8}, method=referring(method))
    name, start = AT_START[method]
    assert reported(context, name)[0] == pytest.approx(start, abs=1e-5)
    assert reported(context, name)[-1] != pytest.approx(start, abs=1e-7)
    assert [path.name for path in context.job.model.iterdir() if path.is_dir()] == [], "a single adapter is saved"
    assert adapter_config(context)["r"] == 16
    assert (logits(tuned(tiny, context.job.model)) - logits(trainers[0].model)).abs().max() <= SAME
