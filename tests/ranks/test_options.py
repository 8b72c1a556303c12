"""`training.devices` and `training.parallel`: what they take, what is refused and how, and what the plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.jobs.run import devices as module
from studio.models.device.gpus import Gpu
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.headers import Tensor
from studio.models.inspect.shape import ModelShape
from studio.models.plan.batches import shares
from studio.models.plan.fit import Lengths
from studio.models.plan.making import Plan, make_plan
from studio.settings import Settings
from studio.train import checks
from tests.models.checkpoints import llama_config, tensor_shapes

ROWS = Lengths(count=100, total_tokens=5000, max=60, supervised_tokens=2000)


def run(**training: Any) -> RunConfig:
    return build(RunConfig, {"training": training})


@pytest.mark.parametrize(
    ("given", "kept", "ranks"),
    [
        ("auto", "auto", 1), (1, "1", 1), ("2", "2", 2), ([0, 2], "[0, 2]", 2), ("0,2", "[0, 2]", 2),
        ("[ 3 ]", "[3]", 1), (" 4 ", "4", 4),
    ],
)  # fmt: skip
def test_devices_are_a_number_or_a_list(given: object, kept: str, ranks: int) -> None:
    training = run(devices=given).training
    assert (training.devices, training.ranks) == (kept, ranks)
    assert build(RunConfig, run(devices=given).model_dump(mode="json")).training == training


@pytest.mark.parametrize("given", [0, -1, 1.5, "all", [1, 1], [-1], ["a"], "[0, 1", "0]", True, None, {}])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(InputErrors) as caught:
        run(devices=given)
    assert caught.value.where.endswith("training.devices")
    assert "auto, a number of devices from 1, or the numbers of different GPUs such as [0, 2]" in caught.value.sentence


@pytest.mark.parametrize(
    ("training", "gpus", "where", "said"),
    [
        ({"devices": 3}, 0, "training.devices", "3 processes were requested, but this computer has 2 cores"),
        ({"devices": [0, 1]}, 0, "training.devices", "there is no cuda:0 and no cuda:1: there is no GPU here"),
        ({"devices": [0, 5]}, 2, "training.devices", "there is no cuda:5: there are cuda:0, cuda:1 here"),
        ({"devices": 3}, 2, "training.devices", "3 devices were requested, but there are cuda:0, cuda:1 here"),
        ({"devices": 3, "device": "cpu"}, 2, "training.devices", "3 processes were requested"),
        ({"devices": 2, "device": "cuda:0"}, 2, "training.devices", "which is one device, but training.devices is 2"),
        (
            {"devices": [0], "device": "cpu"},
            2,
            "training.devices",
            "training.device is cpu, but training.devices lists",
        ),
        ({"device": "cuda:4"}, 2, "training.device", "there is no device 'cuda:4' here"),
    ],
)
def test_devices_that_are_not_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], gpus: int, where: str, said: str
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: [Gpu(f"GPU-{i}", "H100", 8, 8) for i in range(gpus)])
    monkeypatch.setattr(module, "cores", lambda: 2)
    with pytest.raises(InputError) as caught:
        module.require_devices(run(**training).training, settings)
    assert caught.value.where == where and said in caught.value.what and caught.value.fix
    module.require_devices(run(devices=2).training, settings)
    if gpus:
        module.require_devices(run(devices=[1, 0]).training, settings)


@pytest.mark.parametrize(
    ("asked", "where", "said"),
    [
        ({"training": {"parallel": "ddp"}}, "training.parallel", "this run uses one"),
        ({"training": {"devices": 2, "parallel": "none"}}, "training.parallel", "2 devices were requested"),
        ({"training": {"devices": 3}}, "training.batch_size", "8 examples cannot be divided equally among 3 devices"),
        ({"training": {"devices": 2, "micro_batch_size": 8}}, "training.micro_batch_size", "which is no multiple of 8"),
        ({"training": {"devices": 2, "padding_free": True}}, "training.padding_free", "cannot be split"),
        ({"training": {"devices": 2, "engine": "unsloth"}}, "training.engine", "Unsloth trains on one device"),
        (
            {"training": {"devices": 2, "parallel": "fsdp2"}, "method": {"name": "ppo"}},
            "training.parallel",
            "not with ppo, lora and adamw_torch_fused",
        ),
        (
            {"training": {"devices": 2, "parallel": "fsdp2", "optimizer": "adafactor"}},
            "training.parallel",
            "not with sft, lora and adafactor",
        ),
        (
            {"training": {"devices": 2, "parallel": "fsdp2"}, "tuning": {"init": "pissa"}},
            "training.parallel",
            "LoRA or DoRA adapter that starts at default",
        ),
        (
            {"training": {"devices": 2}, "method": {"name": "grpo", "grpo_loss": "bnpo"}},
            "method.grpo_loss",
            "bnpo's loss depends on which completions are computed together",
        ),
        (
            {"training": {"devices": 2, "parallel": "fsdp2"}, "tuning": {"name": "qlora"}},
            "training.parallel",
            "not with sft, qlora",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_with_what_to_change(
    tiny: Path, settings: Settings, asked: dict[str, Any], where: str, said: str
) -> None:
    known = replace(checks.Known.of(build(RunConfig, asked), tiny, settings), lengths=ROWS)
    with pytest.raises(InputErrors) as caught:
        checks.check_method(known)
    found = [error for error in caught.value.errors if error.where == where and said in error.what]
    assert found and found[0].fix, caught.value.sentence


def test_a_run_on_several_machines_is_told_both_of_what_to_set(tiny: Path, settings: Settings) -> None:
    for nodes, fix in (
        (1, "Set it to false, or training.devices to auto"),
        (2, "Set it to false, or training.devices to auto and training.nodes to 1"),
    ):
        asked = {"training": {"devices": 2, "nodes": nodes, "padding_free": True}}
        known = replace(checks.Known.of(build(RunConfig, asked), tiny, settings), lengths=ROWS)
        with pytest.raises(InputErrors) as caught:
            checks.check_method(known)
        assert fix in [error.fix for error in caught.value.errors if "padding-free batches" in error.what]


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_row_has_one_rank_and_all_have_alike(rows: int, ranks: int) -> None:
    lengths = [(17 * i) % 29 + 1 for i in range(rows)]
    dealt = shares(lengths, ranks)
    assert sorted(at for share in dealt for at in share) == list(range(rows)) and len(dealt) == ranks
    sizes = [len(share) for share in dealt]
    assert max(sizes) - min(sizes) <= 1
    tokens = [sum(lengths[at] for at in share) for share in dealt]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_the_plan_is_that_of_one_process_with_its_part_of_batch_and_memory(tiny: Path) -> None:
    shape = ModelShape.from_folder(tiny)
    device = DeviceInfo("cpu", "a processor", 2, 8 * 10**9, 8 * 10**9, 10**10, {"float32": 50.0})
    one, two = (make_plan(run(devices=n), shape, ROWS, device) for n in (1, 2))
    assert (one.ranks, two.ranks) == (1, 2)
    assert (two.steps, two.tokens, two.learning_rate) == (one.steps, one.tokens, one.learning_rate)
    assert two.micro_batch * two.accumulation == 4 and one.micro_batch * one.accumulation == 8
    assert two.available_bytes == one.available_bytes // 2 and two.memory["weights"] == one.memory["weights"]
    assert "for each of 2 processes" in two.line() and "processes" not in one.line()
    auto = make_plan(run(), shape, ROWS, device).choices
    assert auto["training.devices"].reason == "one process uses all cores; several would share them"
    assert auto["training.parallel"].value == "none"
    assert two.choices["training.parallel"].reason.endswith(" in float32 with LoRA fits on each of 2 processes")
    assert two.choices["training.parallel"].value == "ddp"


def test_auto_divides_a_model_that_does_not_fit_on_each_device() -> None:
    sizes = {"hidden": 4096, "inner": 14336, "layers": 32, "heads": 32, "kv_heads": 8, "vocab": 128256}
    shape = ModelShape.from_parts(
        llama_config(**sizes), [Tensor(name, "BF16", size) for name, size in tensor_shapes(**sizes).items()]
    )
    gpu = DeviceInfo("cuda", "a GPU", 16, 80 * 10**9, 79 * 10**9, 10**12, {"bfloat16": 500_000.0}, bf16_fast=True)

    def plan(tuning: str, **training: Any) -> Plan:
        config = build(
            RunConfig,
            {
                "model": {"dtype": "float32"},
                "tuning": {"name": tuning},
                "training": {"devices": 4, **training},
            },
        )
        return make_plan(config, shape, ROWS, gpu)

    lora, full, held = plan("lora"), plan("full"), plan("full", parallel="ddp")
    assert lora.parallel == "ddp" and lora.fits
    assert full.parallel == "fsdp2" and full.fits
    assert lora.choices["training.parallel"].reason == "7.5 B in float32 with LoRA fits on each of 4 GPUs"
    assert full.choices["training.parallel"].reason == (
        f"full fine-tuning of 7.5 B needs {held.total_bytes / 1e9:.1f} GB, too much for the 79.0 GB that each of "
        f"4 GPUs has free; sharded across them it needs {full.total_bytes / 1e9:.1f} GB on each"
    )
    assert held.parallel == "ddp" and not held.fits
    assert full.memory["optimizer"] == held.memory["optimizer"] // 4
    assert full.memory["weights"] > held.memory["weights"] // 4  # the blocks that are whole at a time
