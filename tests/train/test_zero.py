"""DeepSpeed's config is made of the run's options, is what DeepSpeed reads, and computes what one process does.

The last two need DeepSpeed, in an environment of its own: `make test-deepspeed`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.models.device.gpus import Gpu
from studio.models.plan.memory import BUCKET
from studio.settings import Settings
from studio.train import checks
from studio.train.checks import ranks as module
from studio.train.zero import deepspeed_config, for_trainer, refuse_resuming, require_deepspeed, write_config
from tests.ranks.test_options import ROWS

PYTHON = os.environ.get("STUDIO_DEEPSPEED_PYTHON", "")
READS = Path(__file__).with_name("deepspeed_reads.py")
needs_deepspeed = pytest.mark.skipif(not PYTHON, reason="make test-deepspeed")
TOLERANCE = 1e-6  # float32, added up in another order


def run(stage: int = 2, **training: Any) -> RunConfig:
    return build(RunConfig, {"training": {"devices": 2, "parallel": f"zero{stage}", **training}})


def made(stage: int, *, autocast: bool = False, **training: Any) -> dict[str, Any]:
    return deepspeed_config(run(stage, **training), stage=stage, ranks=2, autocast=autocast)


def test_the_config_says_what_the_run_says() -> None:
    values = made(2, autocast=True, batch_size=12, max_grad_norm=0.5)
    assert (values["train_batch_size"], values["train_micro_batch_size_per_gpu"]) == (12, 6)
    assert values["gradient_clipping"] == 0.5 and values["bf16"] == {"enabled": True}
    assert values["zero_optimization"]["stage"] == 2 and values["zero_optimization"]["reduce_bucket_size"] == BUCKET
    assert made(3)["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    given = for_trainer(values)
    assert {name for name in values if given[name] != values[name]} == {
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"
    }  # fmt: skip


def test_without_gpus_or_deepspeed_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="zero2 shards a run across GPUs, and there is none here") as caught:
        require_deepspeed(run(), gpu=False)
    assert "fsdp2" in caught.value.fix
    there = importlib.util.find_spec
    monkeypatch.setattr("studio.train.zero.find_spec", lambda name: None if name == "deepspeed" else there(name))
    with pytest.raises(InputError, match="zero2 needs DeepSpeed, which is not installed") as caught:
        require_deepspeed(run(), gpu=True)
    assert "pip install deepspeed" in caught.value.fix
    monkeypatch.setattr("studio.train.zero.find_spec", lambda _: object())
    require_deepspeed(run(), gpu=True)
    require_deepspeed(build(RunConfig, {"training": {"devices": 2}}), gpu=False)


def test_it_is_not_resumed() -> None:
    with pytest.raises(InputError, match="a zero2 run cannot resume from a checkpoint"):
        refuse_resuming(run())
    refuse_resuming(build(RunConfig, {"training": {"devices": 2, "parallel": "fsdp2"}}))


@pytest.mark.parametrize(
    ("asked", "where", "said"),
    [
        ({"training": {"optimizer": "adafactor"}}, "training.parallel", "not with sft, lora and adafactor"),
        ({"tuning": {"init": "pissa"}}, "training.parallel", "a new LoRA adapter that starts at default"),
        ({"method": {"name": "dpo"}}, "training.parallel", "not with dpo, lora and adamw_torch_fused"),
        (
            {"training": {"load_best_model_at_end": True}}, "training.load_best_model_at_end",
            "the weights of an earlier step cannot be restored",
        ),
    ],
)  # fmt: skip
def test_what_it_cannot_divide_is_refused(
    tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], where: str, said: str
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: [Gpu(f"GPU-{one}", "H100", 8, 8) for one in range(2)])
    monkeypatch.setattr("studio.train.zero.find_spec", lambda _: object())
    training = {"devices": 2, "parallel": "zero3", **asked.get("training", {})}
    config = build(RunConfig, {**asked, "training": training})
    with pytest.raises(InputErrors) as caught:
        checks.check_method(replace(checks.Known.of(config, tiny, settings), lengths=ROWS))
    assert any(error.where == where and said in error.what and error.fix for error in caught.value.errors)


def deepspeed_says(what: str, files: list[Path]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [PYTHON, str(READS), what, *map(str, files)], capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.long
@needs_deepspeed
def test_deepspeed_reads_it(tmp_path: Path) -> None:
    files, wanted = [], []
    for stage in (1, 2, 3):
        for autocast, clipping, rows in ((False, 1.0, 8), (True, 0.5, 64)):
            folder = tmp_path / f"{stage}-{rows}"
            folder.mkdir()
            values = made(stage, autocast=autocast, max_grad_norm=clipping, batch_size=rows)
            files.append(write_config(folder, values))
            wanted.append({
                "stage": stage, "clipping": clipping, "bf16": autocast, "rows": rows // 2, "bucket": BUCKET
            })  # fmt: skip
    assert deepspeed_says("check", files) == wanted


@pytest.mark.long
@needs_deepspeed
def test_two_processes_with_it_compute_what_one_does(tmp_path: Path) -> None:
    files = []
    for stage in (1, 2, 3):
        (tmp_path / str(stage)).mkdir()
        files.append(write_config(tmp_path / str(stage), made(stage, max_grad_norm=0.1, batch_size=8)))
    for found in deepspeed_says("train", files):
        assert found["divided"] == pytest.approx(found["alone"], rel=TOLERANCE)
        assert found["alone"][-1] < found["alone"][0]
