"""FSDP2 on a processor: the numbers of one process, and checkpoints from which any number of ranks goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import wait
from studio.jobs.actions.branching import branch, find_checkpoint
from studio.settings import Settings
from studio.train.trainers.sharded import stored_names
from tests.ranks.made import SECONDS, TOLERANCE, apart, config, curve, events, once, ran
from tests.ranks.test_equal import equal

# torch adds up the squares of 130,000 gradients in float32, in which one process loses more than two with half each;
# the gradients themselves agree to 1e-6.
NORMS = 1e-4
# bfloat16 has 8 bits, and each way of computing rounds at other places.
HALF = 2**-8


def test_what_is_trained_is_found_by_its_name_in_a_file(tiny: Path) -> None:
    """A score's head and DoRA's lengths have other names in a file than their parameters, in PEFT's own way."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", use_dora=True))
    names = stored_names(tuned)
    assert set(names) == {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    told = get_peft_model_state_dict(tuned)
    assert sorted(names.values()) == sorted(told)
    assert all(torch.equal(dict(tuned.named_parameters())[name], told[stored]) for name, stored in names.items())
    assert any("score" in name for name in names) and any("magnitude" in name for name in names)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "ranks"),
    [
        ("sft", "full", 2), ("sft", "lora", 2), ("sft", "full", 3), ("sft", "lora", 3), ("sft", "rslora", 2),
        ("pretrain", "full", 3), ("dpo", "full", 2), ("dpo", "lora", 2), ("dpo", "full", 3), ("dpo", "lora", 3),
        ("grpo", "full", 2), ("grpo", "lora", 2), ("grpo", "full", 3), ("grpo", "lora", 3), ("rloo", "lora", 2),
        ("reward", "lora", 2), ("reward", "full", 2), ("kto", "lora", 2), ("kto", "full", 3), ("orpo", "lora", 2),
        ("orpo", "full", 3), ("simpo", "lora", 2),
    ],
)  # fmt: skip
def test_every_number_is_that_of_one_process(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str, ranks: int
) -> None:
    batch = 3 if ranks == 3 and method != "grpo" else 6
    one = once(session_settings, tiny, f"alone-{batch}", method, tuning, batch_size=batch)
    values = config(tiny, tmp_path, method, tuning, batch_size=batch)
    several = ran(session_settings, f"{method}-{tuning}-{ranks}-divided", values, devices=ranks, parallel="fsdp2")
    equal(several, one, norms=NORMS)


@pytest.mark.long
@pytest.mark.parametrize(("method", "tuning"), [("sft", "full"), ("reward", "lora")])
def test_the_best_model_is_taken_back(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str
) -> None:
    values = config(
        tiny, tmp_path, method, tuning, epochs=10, learning_rate=0.1, eval_steps=1, early_stopping=2,
        load_best_model_at_end=True,
    )  # fmt: skip
    one = ran(session_settings, f"{method}-{tuning}-best-one", values)
    several = ran(session_settings, f"{method}-{tuning}-best", values, devices=2, parallel="fsdp2")
    ends = [[event["values"] for event in events(job) if event["kind"] == "result"][-1] for job in (one, several)]
    assert ends[0]["stopped_early"] and ends[0]["saved_step"] < ends[0]["steps"]
    assert [(end["steps"], end["saved_step"]) for end in ends] == [(ends[0]["steps"], ends[0]["saved_step"])] * 2
    assert apart(several, one) <= 10 * TOLERANCE  # of steps of 0.1, clipped to a norm that is summed up otherwise


@pytest.mark.long
@pytest.mark.parametrize(("begun", "ranks"), [("sharded", 1), ("sharded", 3), ("whole", 2)])
@pytest.mark.parametrize(
    ("method", "tuning"), [(method, tuning) for method in ("sft", "dpo", "grpo") for tuning in ("full", "lora")]
    + [("reward", "lora")],
)  # fmt: skip
def test_any_number_of_ranks_goes_on_from_its_checkpoints(
    tiny: Path, session_settings: Settings, method: str, tuning: str, begun: str, ranks: int
) -> None:
    shared: dict[str, Any] = {"whole": {}, "sharded": {"devices": 2, "parallel": "fsdp2"}}
    one, first = (
        once(session_settings, tiny, name, method, tuning, epochs=4, save_steps=3, save_total_limit=9, **shared[name])
        for name in ("whole", begun)
    )
    raw = dict(first.request.config)
    now = {"devices": str(ranks), "parallel": "auto" if ranks == 1 else "fsdp2"}
    changed = build(RunConfig, {**raw, "training": {**raw["training"], **now}})
    name = f"{method}-{tuning}-{begun}-by-{ranks}"
    child = branch(session_settings, first, find_checkpoint(first, 6), name, changed, 12)
    assert wait(child, seconds=SECONDS).status == "completed", child.log_path.read_text()
    assert curve(child, "loss") == pytest.approx(curve(one, "loss"), rel=TOLERANCE, abs=TOLERANCE)
    assert apart(child, one) <= TOLERANCE


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
