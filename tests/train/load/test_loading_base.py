"""How the base is held and stretched: few bits, DoRA over them, longer positions."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError
from studio.models.device.machine import device_info
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import Lengths
from studio.models.plan.making import make_plan
from studio.train.load.model import load_model
from studio.train.tuning.dora import exact_lengths
from tests.parity.made import demo_rows, logged, make_trainer, reported, write_rows
from tests.support.everyday import everyday
from tests.train.three_steps import AT_START, RANK, ROWS, adapter_of, layers_of, logits, plain, referring, run, tuned

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux has mapped")
@pytest.mark.parametrize("bits", everyday(["4", "8"], "4"))
def test_a_quantised_model_lets_the_checkpoint_go(settings, tiny, tmp_path, trainers, bits) -> None:
    # Its embedding was a view of the mapped file, all of which stayed resident with it.
    own = shutil.copytree(tiny, tmp_path / "own")  # other tests' models may still hold the shared one
    run(settings, own, tmp_path, {"name": "qlora", "bits": bits})
    assert trainers[0].model is not None
    assert str(own / "model.safetensors") not in Path("/proc/self/maps").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("kind", everyday(["linear", "dynamic", "yarn", "llama3"], "yarn"))
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


@pytest.mark.parametrize("tuning", everyday(["full", "lora"], "lora"))
@pytest.mark.parametrize("method", everyday(AT_START, "dpo"))
def test_a_stretched_model_has_a_stretched_reference(settings, tiny, tmp_path, method, tuning) -> None:
    longer = {"rope_scaling": "linear", "rope_factor": 4.0}
    context = run(settings, tiny, tmp_path, {"name": tuning}, method=referring(method), model=longer)
    name, start = AT_START[method]
    assert reported(context, name)[0] == pytest.approx(start, abs=1e-5)
    assert reported(context, name)[-1] != pytest.approx(start, abs=1e-7)


@pytest.mark.parametrize("tuning", everyday(["full", "lora"], "lora"))
def test_a_reward_model_can_be_stretched(settings, tiny, tmp_path, tuning) -> None:
    longer = {"rope_scaling": "linear", "rope_factor": 4.0}
    context = run(settings, tiny, tmp_path, {"name": tuning}, method={"name": "reward"}, model=longer)
    if tuning == "full":
        assert AutoConfig.from_pretrained(context.job.model).num_labels == 1


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
