"""FSDP2 on a processor: the numbers of one process, and checkpoints from which any number of ranks goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import JobFolder, wait
from studio.jobs.actions.branching import branch, find_checkpoint
from studio.settings import Settings
from tests.ranks.made import SECONDS, TOLERANCE, apart, config, curve, ran
from tests.ranks.test_equal import equal

# torch adds up the squares of 130,000 gradients in float32, in which one process loses more than two with half each;
# the gradients themselves agree to 1e-6.
NORMS = 1e-4
# bfloat16 has 8 bits, and each way of computing rounds at other places.
HALF = 2**-8


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "ranks"),
    [
        ("sft", "full", 2), ("sft", "lora", 2), ("pretrain", "full", 3), ("dpo", "full", 2), ("dpo", "lora", 2),
        ("dpo", "full", 3), ("grpo", "lora", 2), ("grpo", "full", 2), ("grpo", "full", 3),
    ],
)  # fmt: skip
def test_every_number_is_that_of_one_process(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str, ranks: int
) -> None:
    values = config(tiny, tmp_path, method, tuning, batch_size=3 if ranks == 3 and method != "grpo" else 6)
    one = ran(session_settings, f"{method}-{tuning}-{ranks}-one", values)
    several = ran(session_settings, f"{method}-{tuning}-{ranks}", values, devices=ranks, parallel="fsdp2")
    equal(several, one, norms=NORMS)


@pytest.mark.long
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_any_number_of_ranks_goes_on_from_its_checkpoints(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str
) -> None:
    values = config(tiny, tmp_path, method, tuning, epochs=4, save_steps=3, save_total_limit=9)
    one = ran(session_settings, f"{method}-{tuning}-whole", values)
    sharded = ran(session_settings, f"{method}-{tuning}-sharded", values, devices=2, parallel="fsdp2")

    def gone_on(begun: JobFolder, name: str, **training: object) -> None:
        raw = dict(begun.request.config)
        changed = build(RunConfig, {**raw, "training": {**raw["training"], **training}})
        child = branch(session_settings, begun, find_checkpoint(begun, 6), f"{method}-{tuning}-{name}", changed, 12)
        assert wait(child, seconds=SECONDS).status == "completed", child.log_path.read_text()
        assert curve(child, "loss") == pytest.approx(curve(one, "loss"), rel=TOLERANCE, abs=TOLERANCE)
        assert apart(child, one) <= TOLERANCE

    gone_on(sharded, "by-one", devices="auto", parallel="auto")
    gone_on(sharded, "by-three", devices="3", parallel="fsdp2")
    gone_on(one, "then-by-two", devices="2", parallel="fsdp2")


@pytest.mark.long
@pytest.mark.parametrize(("tuning", "parallel"), [("lora", "ddp")])
def test_bfloat16_trains_too(
    tiny: Path, session_settings: Settings, tmp_path: Path, tuning: str, parallel: str
) -> None:
    values = config(tiny, tmp_path, tuning=tuning)
    values["model"]["dtype"] = "bfloat16"
    one = ran(session_settings, f"{tuning}-{parallel}-half-one", values)
    several = ran(session_settings, f"{tuning}-{parallel}-half", values, devices=2, parallel=parallel)
    assert curve(several, "loss") == pytest.approx(curve(one, "loss"), rel=HALF)
    assert curve(several, "eval_loss") == pytest.approx(curve(one, "eval_loss"), rel=HALF)
