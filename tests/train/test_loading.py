"""The options of an adapter and of loading do what they say, each in three steps on the tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError
from studio.jobs.worker import JobContext
from studio.models.device import device_info
from studio.models.fit import Lengths
from studio.models.plan import make_plan
from studio.models.shape import ModelShape
from studio.settings import Settings
from studio.train.callbacks import JobCallback
from studio.train.loading import load_model
from studio.train.tuning.dora import exact_lengths
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, logged, make_trainer, reported, write_rows

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]
RANK = 4
SAME = 1e-4  # logits of the same numbers, multiplied in another order


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that the worker made, for a look at them afterwards."""
    made: list[Any] = []
    original = JobCallback.watch

    def watch(self: JobCallback, trainer: Any) -> None:
        made.append(trainer)
        original(self, trainer)

    monkeypatch.setattr(JobCallback, "watch", watch)
    return made


def run(settings: Settings, tiny: Path, tmp_path: Path, tuning: dict[str, Any], **sections: Any) -> JobContext:
    """Three steps on a few rows; without validation, unless a section asks for it."""
    method = sections.get("method", {}).get("name")
    file = "pairs_train.jsonl" if method in ("dpo", "kto", "orpo", "reward") else None
    if method == "grpo":
        file = "sums_train.jsonl"
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows(file, 12) if file else ROWS)
    sections["data"] = {"validation": 0, "max_length": 512, **sections.get("data", {})}
    sections["training"] = {"max_steps": 3, "batch_size": 4, **sections.get("training", {})}
    context = job_for(settings, tiny, rows, tuning={"name": "lora", "rank": RANK, **tuning}, **sections)
    train(context)
    assert len(reported(context)) == sections["training"]["max_steps"]
    assert all(math.isfinite(loss) for loss in reported(context))
    return context


def adapter_of(context: JobContext) -> dict[str, torch.Tensor]:
    return load_file(context.job.model / "adapter_model.safetensors")


def adapter_config(context: JobContext) -> dict[str, Any]:
    return json.loads((context.job.model / "adapter_config.json").read_text())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """The model's answer to some tokens; (1, T, V)."""
    training = model.training
    found = model.eval()(torch.arange(20, 44)[None]).logits
    model.train(training)
    return found


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tuned(base: Path, *adapters: Path) -> Any:
    """A base with the adapters of runs; all but the last are merged into it."""
    model = plain(base)
    for folder in adapters[:-1]:
        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return PeftModel.from_pretrained(model, adapters[-1])


def layers_of(model: Any) -> dict[str, Any]:
    """The layers with an adapter, by name."""
    return {name: module for name, module in model.named_modules() if getattr(module, "lora_A", None)}


# ---- the adapter's shape and strength


def test_rslora_scales_by_the_root_of_the_rank(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path, {"rslora": True})
    assert adapter_config(context)["use_rslora"] is True
    scalings = {layer.scaling["default"] for layer in layers_of(tuned(tiny, context.job.model)).values()}
    assert scalings == {2 * RANK / math.sqrt(RANK)}


@pytest.mark.parametrize("tuning", ["lora", "qlora"])
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


@pytest.mark.parametrize("init", ["gaussian", "pissa", "olora", "orthogonal"])
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


@pytest.mark.parametrize("tuning", ["lora", "dora", "qlora"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_only_the_named_blocks_get_an_adapter(settings, tiny, tmp_path, tuning, targets) -> None:
    context = run(settings, tiny, tmp_path, {"name": tuning, "layers_to_transform": "1", "target_modules": targets})
    layers = {name.rpartition(".lora_")[0] for name in adapter_of(context)}
    assert all(".layers.1." in name for name in layers)
    assert len(layers) == (7 if targets == "all-linear" else 2)


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo", "kto", "grpo"])
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


@pytest.mark.parametrize("tuning", ["lora", "dora", "qlora"])
def test_an_adapter_is_gone_on_with(settings, tiny, tmp_path, tuning) -> None:
    first = run(settings, tiny, tmp_path, {"name": tuning}, data=FIRST)
    second = run(
        settings, tiny, tmp_path, {"name": tuning, "rank": 8, "adapter": str(first.job.model)}, data=FIRST
    )  # fmt: skip
    assert reported(second, "eval_loss")[0] == pytest.approx(reported(first, "eval_loss")[-1], rel=1e-5)
    assert adapter_config(second)["r"] == RANK, "its rank is kept"
    assert adapter_config(second)["use_dora"] == (tuning == "dora")
    before, after = adapter_of(first), adapter_of(second)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "grpo"])
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


@pytest.mark.parametrize("tuning", ["lora", "dora"])
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


@pytest.mark.parametrize("merged", [False, True])
def test_a_reward_model_is_gone_on_with(settings, tiny, tmp_path, merged) -> None:
    options: dict[str, Any] = {"method": {"name": "reward"}, "data": FIRST}
    first = run(settings, tiny, tmp_path, {}, training={"learning_rate": 1e-2}, **options)
    second = run(settings, tiny, tmp_path, {"adapter": str(first.job.model), "merge_adapter": merged}, **options)
    assert reported(second, "eval_loss")[0] == pytest.approx(reported(first, "eval_loss")[-1], rel=1e-5)
    assert adapter_config(second)["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
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


# What is reported in the first step of a run whose reference is where it began.
AT_START = {"dpo": ("loss", math.log(2)), "kto": ("loss", 0.5), "grpo": ("kl", 0.0), "rloo": ("kl", 0.0)}


def referring(method: str) -> dict[str, Any]:
    if method not in ("grpo", "rloo"):
        return {"name": method}
    return {
        "name": "grpo", "grpo_algorithm": method, "beta": 0.1, "rewards": ["length"], "reward_length": 6,
        "max_completion_length": 8, "num_generations": 2,
    }  # fmt: skip


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("method", AT_START)
def test_a_start_in_the_base_is_the_reference(settings, tiny, tmp_path, trainers, init, method) -> None:
    """Without its adapter such a base is not the model that training began with."""
    context = run(settings, tiny, tmp_path, {"init": init, "rank": 8}, method=referring(method))
    name, start = AT_START[method]
    assert reported(context, name)[0] == pytest.approx(start, abs=1e-5)
    assert reported(context, name)[-1] != pytest.approx(start, abs=1e-7)
    assert [path.name for path in context.job.model.iterdir() if path.is_dir()] == [], "a single adapter is saved"
    assert adapter_config(context)["r"] == 16
    assert (logits(tuned(tiny, context.job.model)) - logits(trainers[0].model)).abs().max() <= SAME


# ---- quantised weights


def test_dora_over_4_bits_survives_a_validation(settings, tiny, tmp_path) -> None:
    """The first forward pass without gradients packs 4-bit weights anew, in place, unless it is forbidden."""
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    raw: dict[str, Any] = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.25},
        "tuning": {"name": "qlora", "dora": True, "rank": RANK},
        "training": {"max_steps": 3, "batch_size": 3, "learning_rate": 1e-2, "eval_steps": 1},
    }
    trainer = make_trainer(raw, tiny, tmp_path / "out", settings).trainer
    ids = torch.arange(20, 44)[None]
    before = trainer.model(ids).logits  # with gradients, which never packs
    assert before.requires_grad
    trainer.train()
    trained = trainer.model.train()(ids).logits
    assert (trained - before).abs().max() > 1e-3
    trainer.evaluate()
    assert (trainer.model.train()(ids).logits - trained).abs().max() <= 1e-6
    assert (logits(trainer.model) - trained).abs().max() <= 1e-6, "and validation sees what training sees"
    raw["training"]["eval_steps"] = 1000
    quiet = make_trainer(raw, tiny, tmp_path / "other", settings).trainer
    quiet.args.eval_on_start = False
    quiet.train()
    assert logged(quiet) == pytest.approx(logged(trainer), abs=1e-6), "validations change nothing"


@pytest.mark.parametrize(
    ("bits", "kind", "quant"), [("4", "Linear4bit", "nf4"), ("4", "Linear4bit", "fp4"), ("8", "Linear8bitLt", None)]
)
def test_frozen_weights_are_held_in_few_bits(settings, tiny, tmp_path, trainers, bits, kind, quant) -> None:
    options = {"name": "qlora", "bits": bits, **({"quant_type": quant, "double_quant": False} if quant else {})}
    context = run(settings, tiny, tmp_path, options)
    layers = layers_of(trainers[0].model)
    assert len(layers) == 14
    for layer in layers.values():
        base = layer.get_base_layer()
        assert type(base).__name__ == kind
        assert base.weight.dtype in (torch.uint8, torch.int8)
        if quant:
            assert base.weight.quant_state.quant_type == quant
            assert base.weight.quant_state.nested is False
        assert layer.lora_B["default"].weight.dtype == torch.float32, "TRL's bfloat16 is undone"
    assert all(tensor.dtype == torch.float32 for tensor in adapter_of(context).values())
    assert (logits(tuned(tiny, context.job.model)) - logits(trainers[0].model)).abs().max() < 0.3


def test_dora_over_8_bits_is_refused(settings, tiny, tmp_path) -> None:
    with pytest.raises(InputError, match=r"tuning\.dora: dora over 8-bit weights fails.*set tuning\.bits to 4"):
        run(settings, tiny, tmp_path, {"name": "qlora", "dora": True, "bits": "8"})


def test_dora_begins_at_the_base_in_bfloat16_too(settings, tiny, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 4))
    for tuning in ({"name": "dora"}, {"name": "qlora", "dora": True}):
        raw = {
            "model": {"path": str(tiny), "dtype": "bfloat16"},
            "data": {"train": [{"path": str(rows)}], "validation": 0},
            "method": {"name": "dpo"},
            "tuning": {"rank": RANK, **tuning},
            "training": {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-3},
        }
        trainer = make_trainer(raw, tiny, tmp_path / tuning["name"], settings).trainer
        trainer.train()
        assert logged(trainer) == pytest.approx([math.log(2)], abs=1e-6), tuning


def test_lengths_that_were_learned_are_left_alone(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path, {"name": "dora"})
    model = tuned(tiny, context.job.model)
    before = logits(model)
    exact_lengths(model)
    assert torch.equal(logits(model), before)


# ---- longer context


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_stretched_positions(settings, tiny, tmp_path, trainers, kind, tuning) -> None:
    length = AutoConfig.from_pretrained(tiny).max_position_embeddings
    context = run(
        settings, tiny, tmp_path, {"name": tuning}, model={"rope_scaling": kind, "rope_factor": 4.0},
        training={"max_steps": 1},
    )  # fmt: skip
    model = trainers[0].model
    config = model.config
    assert config.rope_parameters["rope_type"] == kind
    assert config.rope_parameters["factor"] == 4.0
    inner = model.get_base_model() if tuning == "lora" else model
    positions = torch.arange(length + 8)[None]
    hidden = torch.zeros(1, 1, 1)
    stretched = inner.model.rotary_emb(hidden, positions)[0]
    usual = plain(tiny).model.rotary_emb(hidden, positions)[0]
    assert not torch.allclose(stretched[0, -1], usual[0, -1], atol=1e-3), "beyond the limit positions are others"
    if kind == "dynamic":
        # Its limit stays that of the model: what is longer than that is stretched by how much it is longer.
        assert config.max_position_embeddings == length
        short = torch.arange(16)[None]
        assert torch.allclose(inner.model.rotary_emb(hidden, short)[0], plain(tiny).model.rotary_emb(hidden, short)[0])
    else:
        assert config.max_position_embeddings == 4 * length
    # Chat, evaluation and export put the adapter on the base that the job records, which is stretched.
    base = Path(context.job.environment()["base_model"]["path"])
    assert (AutoConfig.from_pretrained(base).rope_parameters["rope_type"] == kind) == (tuning == "lora")
    assert (base / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    if tuning == "full":
        saved = AutoConfig.from_pretrained(context.job.model)
        assert saved.rope_parameters["rope_type"] == kind
        assert saved.max_position_embeddings == config.max_position_embeddings


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("method", AT_START)
def test_a_stretched_model_has_a_stretched_reference(settings, tiny, tmp_path, method, tuning) -> None:
    longer = {"rope_scaling": "linear", "rope_factor": 4.0}
    context = run(settings, tiny, tmp_path, {"name": tuning}, method=referring(method), model=longer)
    name, start = AT_START[method]
    assert reported(context, name)[0] == pytest.approx(start, abs=1e-5)
    assert reported(context, name)[-1] != pytest.approx(start, abs=1e-7)


def test_a_model_with_two_kinds_of_positions_is_stretched_where_it_sees_far(settings, tiny, tmp_path) -> None:
    folder = tmp_path / "gemma"
    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=8, max_position_embeddings=128, sliding_window_pattern=2,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(folder)
    run_config = build(
        RunConfig,
        {"model": {"path": str(folder), "dtype": "float32", "rope_scaling": "linear", "rope_factor": 2.0}},
    )
    plan = make_plan(run_config, ModelShape.from_folder(folder), Lengths(4, 40, 10, 20), device_info(settings))
    loaded = load_model(run_config, plan, folder, AutoTokenizer.from_pretrained(tiny))
    parameters = loaded.model.config.rope_parameters
    assert parameters["full_attention"]["rope_type"] == "linear"
    assert parameters["full_attention"]["factor"] == 2.0
    assert parameters["sliding_attention"]["rope_type"] == "default"
    assert loaded.model.config.max_position_embeddings == 256
