"""What several GPUs would hold: parts are divided by the stage, docs/scale.md is what the plan says, auto says why."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.known_shapes import shape_of
from studio.models.plan import paper
from studio.models.plan.fit import Lengths
from studio.models.plan.making import Plan, make_plan
from studio.models.plan.paper import EIGHT, LIMITS, RUNS, SEVENTY, Case

ROWS = Lengths(count=1000, total_tokens=1_024_000, max=1024, supervised_tokens=512_000)
SHAPE = shape_of(EIGHT)


def card(gigabytes: int) -> DeviceInfo:
    size = gigabytes * 10**9
    return DeviceInfo("cuda", "a GPU", 16, size, size, 10**12, {"bfloat16": 500_000.0}, bf16_fast=True)


def plan(tuning: str, *, gigabytes: int = 80, ranks: int = 4, dtype: str = "auto", **training: Any) -> Plan:
    config = RunConfig(
        model={"dtype": dtype}, tuning={"name": tuning},
        training={"batch_size": 8 * ranks, "devices": str(ranks), "micro_batch_size": 1, **training},
    )  # fmt: skip
    return make_plan(config, SHAPE, ROWS, card(gigabytes))


def test_the_page_is_what_the_plan_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["paper", "--check"])
    assert paper.main() == 0, capsys.readouterr().err


def test_the_section_takes_the_place_of_an_older_one() -> None:
    text = "## On paper\n\nnew\n"
    assert paper.with_section("# Page\n\n## On paper\n\nold\n\n## Last\n", text) == f"# Page\n\n{text}\n## Last\n"
    assert paper.with_section("# Page\n", text) == f"# Page\n\n{text}"


def test_runs_fit_and_limits_are_what_they_are_called() -> None:
    assert shape_of(SEVENTY).parameters == SEVENTY.parameters == 70_553_706_496
    assert all(case.plan().fits for case in RUNS)
    for case, change, words in LIMITS:
        changed = Case(**{**vars(case), **change})
        assert not case.plan().fits and changed.plan().fits, words
        assert all(str(value).rpartition(":")[2].strip() in words for value in change.values() if type(value) is int)


def test_each_stage_divides_more() -> None:
    count, parts = SHAPE.parameters, {}
    for stage in ("ddp", "zero1", "zero2", "zero3"):
        made = plan("full", ranks=8, parallel=stage, activation_checkpointing=True)
        parts[stage] = (
            made.memory["weights"] - made.gathered, made.memory["gradients"] - made.buffers, made.memory["optimizer"]
        )  # fmt: skip
    assert parts["ddp"][1:] == (4 * count, 8 * count)
    # DeepSpeed: weights and gradients in bfloat16; the float32 weights are states, beside AdamW's two.
    assert parts["zero1"] == (2 * count, 2 * count, 12 * count // 8)
    assert parts["zero2"] == (2 * count, 2 * count // 8, 12 * count // 8)
    assert parts["zero3"] == (2 * count // 8, 2 * count // 8, 12 * count // 8)


def test_fsdp2_keeps_float32_weights_and_gathers_blocks_in_bfloat16() -> None:
    made, count = plan("full", ranks=8, parallel="fsdp2"), SHAPE.parameters
    block, outside = 218_103_808, 128_256 * 4096  # weights of the linear layers of a block; embedding, or head
    assert made.memory["weights"] - made.gathered == 4 * count // 8
    assert made.gathered == 2 * 2 * block + (4 + 2) * outside
    assert made.memory["gradients"] - made.buffers == 4 * count // 8
    assert made.buffers == (2 + 4 + 4) * block + (4 + 2) * outside
    assert made.memory["optimizer"] == 8 * count // 8 and not made.activation_checkpointing
    whole = plan("full", ranks=8, parallel="fsdp2", dtype="float32")
    assert whole.gathered == 4 * (2 * block + 2 * outside)
    lora = plan("lora", ranks=8, parallel="fsdp2")
    assert (lora.dtype, lora.gathered) == ("bfloat16", 2 * (2 * block + 2 * outside))


def test_fsdp2_recomputes_activations_where_that_fits() -> None:
    kept = plan("full", parallel="fsdp2", activation_checkpointing=False, gigabytes=52)
    made = plan("full", parallel="fsdp2", gigabytes=52)
    assert made.parallel == "fsdp2" and made.fits and made.activation_checkpointing and not kept.fits
    assert made.memory["activations"] < kept.memory["activations"] / 2
    assert made.gathered == kept.gathered


def test_auto_says_why() -> None:
    lora = plan("lora").choices["training.parallel"]
    assert (lora.value, lora.reason) == ("ddp", "8.03 B in bfloat16 with LoRA fits on each of 4 GPUs")
    small = plan("qlora", gigabytes=24).choices["training.parallel"]
    assert (small.value, small.reason) == ("ddp", "8.03 B in 4 bits with QLoRA fits on each of 4 GPUs")

    full, whole = plan("full"), plan("full", parallel="ddp")
    assert (full.dtype, full.autocast, full.parallel) == ("float32", True, "fsdp2") and full.fits and not whole.fits
    assert full.choices["training.parallel"].reason == (
        f"full fine-tuning of 8.03 B needs {whole.total_bytes / 1e9:.1f} GB, too much for the 80.0 GB that each of "
        f"4 GPUs has free; sharded across them it needs {full.total_bytes / 1e9:.1f} GB on each"
    )
    neither = plan("full", gigabytes=24)
    assert neither.parallel == "ddp" and not neither.fits and neither.advice
    assert neither.choices["training.parallel"].reason.endswith("GB on each, too much as well")
    unable = plan("full", optimizer="adafactor", gigabytes=24).choices["training.parallel"]
    assert unable.value == "ddp" and unable.reason.endswith("which would divide it, does not go with these options")


def test_what_is_sent() -> None:
    lora, full = RUNS[0], RUNS[1]
    made = full.plan()
    # Weights twice in bfloat16, embeddings in float32, and gradients once in float32, for each of eight micro-batches.
    each = (2 * 2 + 4) * SHAPE.parameters + 2 * 2 * 128_256 * 4096
    assert paper.sent_bytes(full, made) == made.accumulation * each * 7 / 8
    assert paper.sent_bytes(lora, lora.plan()) == 2 * 4 * lora.plan().trainable * 7 / 8
    computing, sending = paper.times(full, made)
    assert computing > sending > 0
