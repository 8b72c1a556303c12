"""The plan is arithmetic: parts sum up, more costs more, every automatic choice has a reason, advice works."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.methods import METHODS
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.headers import Tensor
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import MODEST, Lengths
from studio.models.plan.making import Plan, make_plan, rate_for
from studio.models.plan.memory import PARTS
from studio.models.plan.saying import duration
from tests.models.checkpoints import llama_config, tensor_shapes

SIZES = {"hidden": 576, "inner": 1536, "layers": 30, "heads": 9, "kv_heads": 3, "vocab": 49152}
SHAPE = ModelShape.from_parts(
    llama_config(**SIZES), [Tensor(name, "BF16", size) for name, size in tensor_shapes(**SIZES).items()]
)
DEVICE = DeviceInfo(
    "cpu", "a processor", 2, 25 * 10**9, 20 * 10**9, 10**11, {"float32": 200.0, "bfloat16": 900.0}, True
)
LENGTHS = Lengths(count=500, total_tokens=40_000, max=120, supervised_tokens=15_000, validation_count=50)


def plan(lengths: Lengths = LENGTHS, device: DeviceInfo = DEVICE, **sections: Any) -> Plan:
    return make_plan(RunConfig(**sections), SHAPE, lengths, device)


def test_default_run() -> None:
    made = plan()
    assert made.parameters == 134_515_008
    assert made.trainable == 4_884_480
    assert (made.steps, made.steps_per_epoch, made.micro_batch, made.accumulation) == (126, 63, 8, 1)
    assert (made.learning_rate, made.dtype, made.autocast) == (1e-3, "bfloat16", True)
    assert (made.eval_steps, made.save_steps) == (16, 63)
    assert made.fits and not made.advice and not made.activation_checkpointing
    assert made.line().startswith("LoRA r16 · 4.88 M of 135 M trainable · 2 epochs = 126 steps · about ")
    assert made.line().endswith(" of 20.0 GB")
    json.dumps(made.as_dict())


def test_parts_sum_to_the_total() -> None:
    made = plan()
    assert set(made.memory) == set(PARTS)
    assert made.as_dict()["total_bytes"] == made.total_bytes == sum(made.memory.values())


def test_every_auto_has_a_reason_and_a_source() -> None:
    automatic = (
        "data.max_length", "model.attention", "model.dtype", "training.learning_rate", "training.micro_batch_size",
        "training.activation_checkpointing", "training.eval_steps", "training.save_steps", "training.keep_best",
        "training.activation_offloading", "training.devices", "training.parallel",
    )  # fmt: skip
    made = plan()
    assert set(made.choices) == set(automatic)
    assert all(choice.reason and choice.source for choice in made.choices.values())
    asked = plan(
        model={"dtype": "float32", "attention": "eager"},
        data={"max_length": 256},
        training={
            "learning_rate": 1e-5, "micro_batch_size": 2, "activation_checkpointing": True, "eval_steps": 3,
            "save_steps": 4, "keep_best": False, "devices": "1", "parallel": "none", "activation_offloading": False,
        },
    )  # fmt: skip
    assert {choice.source for choice in asked.choices.values()} == {"your setting"}
    assert (asked.dtype, asked.autocast, asked.learning_rate) == ("float32", False, 1e-5)
    assert (asked.micro_batch, asked.accumulation, asked.activation_checkpointing) == (2, 4, True)
    assert (asked.eval_steps, asked.save_steps) == (3, 4)


@pytest.mark.parametrize(
    ("steps", "rows", "every"),
    [(12, 50, 12), (12, 96, 12), (100, 80, 13), (100, 200, 34), (105, 90, 14), (3, 5, 1), (1, 400, 1)],
)
def test_validations_take_at_most_a_third_of_the_training(steps: int, rows: int, every: int) -> None:
    made = plan(replace(LENGTHS, validation_count=rows), training={"max_steps": steps, "batch_size": 8})
    assert made.eval_steps == every
    read, trained = (steps // every + 1) * rows, 3 * 8 * steps
    assert read <= trained / 3 or every == steps, "one at the end there always is"
    waiting = plan(replace(LENGTHS, validation_count=rows), training={"max_steps": steps, "early_stopping": 2})
    assert waiting.eval_steps == -(-steps // 8), "who waits for the best wants to see it"


def test_full_tuning_keeps_float32_weights() -> None:
    made = plan(tuning={"name": "full"})
    assert (made.dtype, made.autocast, made.adapter_bytes) == ("float32", True, 0)
    assert made.trainable == made.parameters
    assert made.memory["optimizer"] == 8 * made.parameters
    assert plan(tuning={"name": "full"}, training={"optimizer": "sgd"}).memory["optimizer"] == 0
    assert "Full fine-tuning · 135 M of 135 M" in made.line()


def test_slow_bfloat16_is_not_chosen() -> None:
    slow = replace(DEVICE, gflops={"float32": 200.0, "bfloat16": 20.0}, bf16_fast=False)
    made = plan(device=slow)
    assert (made.dtype, made.autocast) == ("float32", False)
    assert "0.1 times" in made.choices["model.dtype"].reason


def test_unmeasured_device_gives_no_time() -> None:
    made = plan(device=replace(DEVICE, gflops={}))
    assert made.seconds is None and "time not known yet" in made.line()


def test_steps_follow_the_trainer() -> None:
    # 10 rows in batches of 8 = 2 updates an epoch; the last one is smaller.
    short = replace(LENGTHS, count=10, total_tokens=800, supervised_tokens=300)
    assert plan(short, training={"epochs": 1.5}).steps == 3
    limited = plan(short, training={"max_steps": 5})
    assert (limited.steps, limited.epochs) == (5, 2.5)
    assert plan(replace(short, validation_count=0)).eval_steps == 0
    one = plan(Lengths(1, 50, 50, 10, 0))
    assert (one.micro_batch, one.accumulation, one.steps) == (1, 8, 2)


def test_micro_batch_shrinks_before_anything_is_computed_twice() -> None:
    long = Lengths(500, 500 * 900, 1000, 100_000, 0)
    whole, single = plan(long), plan(long, training={"micro_batch_size": 1, "activation_checkpointing": False})
    assert whole.micro_batch == 2 and whole.micro_tokens == 2048, "about 2,000 tokens at a time"
    tight = plan(long, device=replace(DEVICE, available_bytes=int(single.total_bytes / MODEST) + 1))
    assert (tight.micro_batch, tight.activation_checkpointing) == (1, False) and tight.fits
    saving = plan(long, device=replace(DEVICE, available_bytes=int(single.total_bytes / MODEST) - 10**6))
    assert saving.activation_checkpointing and saving.fits
    assert saving.total_bytes <= MODEST * saving.available_bytes
    assert "not even one example" in saving.choices["training.activation_checkpointing"].reason
    # Nothing keeps to half of so little, so the smallest runs.
    least = plan(long, training={"micro_batch_size": 1, "activation_checkpointing": True}).total_bytes
    full = plan(long, device=replace(DEVICE, available_bytes=int(least / MODEST) - 10**6))
    assert full.fits and full.micro_batch == 1 and full.total_bytes == least
    assert "nothing stays within half" in full.choices["training.micro_batch_size"].reason


def test_a_gpu_offloads_only_where_recomputing_is_not_enough() -> None:
    long = Lengths(500, 500 * 7000, 8000, 2_000_000, 0)
    gpu = replace(DEVICE, kind="cuda", name="a GPU")

    def made(gigabytes: float, **training: Any) -> Plan:
        return plan(long, device=replace(gpu, available_bytes=int(gigabytes * 1e9)), training=training)

    roomy = made(80)
    assert not roomy.activation_checkpointing and not roomy.activation_offloading
    assert roomy.choices["training.activation_offloading"].reason == "it is not needed"
    kept = made(80, micro_batch_size=1, activation_checkpointing=True, activation_offloading=False)
    away = made(80, micro_batch_size=1, activation_offloading=True)
    assert away.activation_checkpointing and away.activation_offloading
    # Of 30 layers' inputs in bfloat16 two are on the GPU.
    assert kept.memory["activations"] - away.memory["activations"] == 8000 * 28 * 2 * 576
    assert "up to 0.3 GB of the computer's memory" in away.choices["training.activation_offloading"].reason
    recomputed = made(1.01 * kept.total_bytes / 0.9e9, micro_batch_size=1)
    assert recomputed.activation_checkpointing and not recomputed.activation_offloading and recomputed.fits
    tight = made(0.99 * kept.total_bytes / 0.9e9, micro_batch_size=1)
    assert tight.activation_offloading and tight.fits and tight.total_bytes == away.total_bytes
    assert "recomputing alone does not save enough" in tight.choices["training.activation_offloading"].reason
    # What was turned off stays off, and is named where it would help.
    refused = made(0.99 * kept.total_bytes / 0.9e9, micro_batch_size=1, activation_offloading=False)
    assert not refused.fits and not refused.activation_offloading
    assert "Set training.activation_offloading to true: it then needs" in " ".join(refused.advice)
    whole = made(1, micro_batch_size=1, activation_checkpointing=False)
    assert not whole.activation_offloading and "activation_offloading" not in " ".join(whole.advice)
    on_cpu = plan(long, device=replace(DEVICE, available_bytes=10**9))
    assert not on_cpu.activation_offloading and "activation_offloading" not in " ".join(on_cpu.advice)


@pytest.mark.parametrize("saving", ["auto", True, False])
def test_unsloth_offloads_with_its_own_checkpointing(saving: Any) -> None:
    long = Lengths(500, 500 * 7000, 8000, 2_000_000, 0)
    for free in (3_000_000_000, 80_000_000_000):
        gpu = replace(DEVICE, kind="cuda", name="a GPU", available_bytes=free)
        made = plan(long, device=gpu, training={"engine": "unsloth", "activation_checkpointing": saving})
        assert made.activation_offloading == made.activation_checkpointing
        plain = {"engine": "unsloth", "activation_checkpointing": saving, "activation_offloading": False}
        assert not plan(long, device=gpu, training=plain).activation_offloading


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_following_the_advice_makes_it_fit(tuning: str) -> None:
    long = Lengths(500, 500 * 1800, 2000, 200_000, 0)
    sections: dict[str, Any] = {
        "tuning": {"name": tuning}, "training": {"micro_batch_size": 8, "activation_checkpointing": False},
    }  # fmt: skip
    device = replace(DEVICE, available_bytes=4_000_000_000)
    made = plan(long, device=device, **sections)
    assert not made.fits and made.advice
    text = " ".join(made.advice)
    assert "training.micro_batch_size" in text and "training.activation_checkpointing" in text
    sections["training"] = {"micro_batch_size": 1, "activation_checkpointing": True}
    sections["tuning"] = {"name": "lora"}
    assert plan(long, device=device, **sections).fits


def test_too_large_a_model_says_so() -> None:
    made = plan(device=replace(DEVICE, available_bytes=500_000_000))
    assert not made.fits
    assert "smaller model" in made.advice[-1] and "0.3 GB" in made.advice[-1]


@settings(max_examples=60, deadline=None)
@given(
    micro=st.sampled_from([1, 2, 4]), length=st.integers(8, 4096), rank=st.integers(1, 128),
    full=st.booleans(), saving=st.booleans(), dtype=st.sampled_from(["float32", "bfloat16"]),
)  # fmt: skip
def test_more_never_costs_less(micro: int, length: int, rank: int, full: bool, saving: bool, dtype: str) -> None:
    def total(micro: int, length: int, rank: int) -> int:
        lengths = Lengths(100, 100 * length, length, 50 * length, 0)
        return plan(
            lengths,
            model={"dtype": dtype},
            tuning={"name": "full" if full else "lora", "rank": rank},
            # A batch computed at once needs no gradients beside activations: here every micro-batch is a part of it.
            training={"batch_size": 16, "micro_batch_size": micro, "activation_checkpointing": saving},
        ).total_bytes

    here = total(micro, length, rank)
    assert here <= total(2 * micro, length, rank)
    assert here <= total(micro, length + 8, rank)
    assert here <= total(micro, length, rank + 1)


def test_checkpointing_and_adapters_save_memory() -> None:
    long = Lengths(500, 500 * 900, 1000, 100_000, 0)
    fixed: dict[str, Any] = {"micro_batch_size": 4}
    plain = plan(long, training={**fixed, "activation_checkpointing": False})
    saved = plan(long, training={**fixed, "activation_checkpointing": True})
    full = plan(long, tuning={"name": "full"}, training={**fixed, "activation_checkpointing": False})
    assert saved.total_bytes < plain.total_bytes < full.total_bytes
    assert (saved.seconds or 0) > (plain.seconds or 0)


def test_no_examples_is_our_bug() -> None:
    with pytest.raises(ValueError, match="example"):
        plan(Lengths(0, 0, 0, 0, 0))


def test_rates_cover_every_size() -> None:
    for method, adapter in itertools.product(METHODS.values(), (True, False)):
        rows = [row for row in method.rates if row.adapter == adapter]
        assert rows[-1].below == math.inf
        assert [row.value for row in rows] == sorted((row.value for row in rows), reverse=True)
        assert all(row.reason and row.source for row in rows)
    assert rate_for(METHODS["sft"], True, 7 * 10**9).value == 2e-4


def test_durations_are_round() -> None:
    assert [duration(s) for s in (1, 42, 60, 161, 1234, 4800, 7200, 300_000)] == [
        "5 s", "40 s", "1 min", "2 min 40 s", "21 min", "1 h 20 min", "2 h", "3 d 11 h",
    ]  # fmt: skip
