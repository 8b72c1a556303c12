"""Mechanics of a training run on a tiny random model with the real tokenizer: what moves, what counts, what stops.

And the options of training: each optimizer and schedule once, with what can be known of it by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, get_scheduler

from studio.config import RunConfig
from studio.config.load import build
from studio.config.training import TrainingConfig
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import Summaries, read_events, request_stop
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import best_step
from studio.models.plan.schedule import scheduler_arguments, warmup_steps
from studio.settings import Settings
from studio.train.tuning import prepare
from studio.train.worker import train
from tests.parity.made import job_for, logged, make_trainer, reported, write_rows
from tests.support.everyday import everyday

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]

OPTIMIZERS = get_args(TrainingConfig.model_fields["optimizer"].annotation)
SCHEDULERS = get_args(TrainingConfig.model_fields["scheduler"].annotation)


def run(settings: Settings, tiny: Path, tmp_path: Path, **sections: dict[str, Any]) -> JobContext:
    return job_for(settings, tiny, write_rows(tmp_path / "rows.jsonl", ROWS), **sections)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_should_move_moves_and_nothing_else(settings, tiny, tmp_path, tuning) -> None:
    context = run(settings, tiny, tmp_path, tuning={"name": tuning, "rank": 4})
    train(context)
    before = LlamaForCausalLM.from_pretrained(tiny, dtype=torch.float32).state_dict()
    assert len(reported(context)) == 6
    if tuning == "full":
        after = LlamaForCausalLM.from_pretrained(context.job.model, dtype=torch.float32).state_dict()
        assert after.keys() == before.keys()
        assert all(not torch.equal(after[name], before[name]) for name in before)
    else:
        adapter = load_file(context.job.model / "adapter_model.safetensors")
        assert len(adapter) == 2 * 7 * 2
        assert all(tensor.abs().max() > 0 for tensor in adapter.values()), "every B left its zero"
        assert not list(context.job.model.glob("model*.safetensors"))
    assert (context.job.model / "tokenizer.json").exists()


def test_events_tell_the_whole_story(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path)
    train(context)
    events, _ = read_events(context.job.events_path)
    phases = [event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"]
    assert phases[:4] == ["preparing model", "reading data", "tokenizing", "loading model"]
    assert "validating" in phases
    assert phases[-1] == "saving"
    summary = Summaries().of(context.job)
    assert (summary.step, summary.total_steps) == (6, 6)
    assert summary.best is not None
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_second", "eval_loss"} <= set(summary.values)
    steps = [event for event in events if event["kind"] == "metric" and "loss" in event["values"]]
    rows = AutoTokenizer.from_pretrained(tiny)
    length = len(rows.apply_chat_template(ROWS[0]["messages"], return_dict=True)["input_ids"])
    assert steps[-1]["tokens"] >= 18 * (length - 2), "real tokens are counted, over all epochs"
    assert 0 < steps[-1]["supervised_tokens"] < steps[-1]["tokens"]
    assert all(event["memory_gb"] > 0 for event in events)


def test_accumulation_does_not_change_the_loss(settings, tiny, tmp_path) -> None:
    whole = run(settings, tiny, tmp_path, training={"micro_batch_size": 3, "epochs": 1})
    train(whole)
    pieces = run(settings, tiny, tmp_path, training={"micro_batch_size": 1, "epochs": 1})
    train(pieces)
    assert reported(pieces) == pytest.approx(reported(whole), rel=2e-5)


def test_the_same_seed_gives_the_same_run(settings, tiny, tmp_path) -> None:
    first, second, other = (run(settings, tiny, tmp_path, training={"seed": seed}) for seed in (1, 1, 2))
    for context in (first, second, other):
        train(context)
    assert reported(first) == reported(second)
    assert reported(first) != reported(other)


def test_a_stop_saves_what_was_learned(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path)
    request_stop(context.job)
    with pytest.raises(StoppedError):
        train(context)
    assert not context.job.model.exists(), "nothing was learned yet"
    context.job.stop_path.unlink()
    context = JobContext(context.job, settings)
    original = context.metric

    def stop_at_two(step: int, values: dict[str, float], **more: Any) -> None:
        original(step, values, **more)
        if step == 1 and "loss" in values:
            request_stop(context.job)

    context.metric = stop_at_two  # type: ignore[method-assign]
    with pytest.raises(StoppedError, match="step 2 of 6"):
        train(context)
    assert (context.job.model / "adapter_model.safetensors").exists()
    assert (context.job.checkpoints / "checkpoint-2" / "optimizer.pt").exists()


def test_checkpoints_go_after_the_end_but_for_the_best(settings, tiny, tmp_path) -> None:
    context = run(
        settings, tiny, tmp_path, training={"save_steps": 2, "save_total_limit": 3, "keep_checkpoints": "none"}
    )
    train(context)
    best = best_step(context.job.checkpoints)
    assert best is not None
    assert [path.name for path in context.job.checkpoints.glob("checkpoint-*")] == [f"checkpoint-{best}"]
    assert (context.job.model / "adapter_model.safetensors").exists()


def test_a_loss_that_is_no_number_ends_the_run_with_the_setting_to_change(settings, tiny, tmp_path) -> None:
    context = run(
        settings, tiny, tmp_path, tuning={"name": "full"},
        training={"learning_rate": 1.0, "optimizer": "sgd", "max_grad_norm": 0, "epochs": 200, "scheduler": "constant"},
    )  # fmt: skip
    poisoned = LlamaForCausalLM.from_pretrained(tiny)
    poisoned.lm_head.weight.data[:] = float("nan")
    folder = tmp_path / "poisoned"
    poisoned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    context.config["model"]["path"] = str(folder)
    with pytest.raises(StudioError, match=r"the loss became nan at step 1.*training\.learning_rate"):
        train(context)
    assert reported(context) == ["nan"]


def test_a_layer_that_does_not_exist_names_those_that_do(tiny) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny)
    tuning = build(RunConfig, {"tuning": {"target_modules": ["q_proj", "wq"]}}).tuning
    with pytest.raises(InputError, match=r"tuning\.target_modules: .*'wq'.*q_proj"):
        prepare(model, tuning, "CAUSAL_LM")


# ---- options of training


@pytest.mark.long
def test_noise_on_the_embeddings_changes_training_and_not_the_validation(settings, tiny, tmp_path) -> None:
    plain, noisy = (
        run(settings, tiny, tmp_path, method={"neftune_noise_alpha": alpha}, training={"max_steps": 3})
        for alpha in (0, 50)
    )
    for context in (plain, noisy):
        train(context)
    assert abs(reported(noisy)[0] - reported(plain)[0]) > 1e-3
    assert reported(noisy, "eval_loss")[0] == reported(plain, "eval_loss")[0]


@pytest.mark.long
def test_dft_is_trls_own(settings, tiny, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    raw: dict[str, Any] = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0},
        "method": {"loss": "dft"},
        "training": {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3},
    }
    ours = make_trainer(raw, tiny, tmp_path / "ours", settings).trainer
    assert ours.engine_loss
    ours.train()
    theirs = make_trainer(raw, tiny, tmp_path / "theirs", settings).trainer
    theirs.engine_loss = False
    theirs.train()
    assert logged(ours) == pytest.approx(logged(theirs), rel=1e-5)
    raw["method"] = {"loss": "nll"}
    usual = make_trainer(raw, tiny, tmp_path / "usual", settings).trainer
    usual.train()
    assert logged(usual)[0] > 100 * logged(ours)[0], "each token counts by its probability, 1 in 4,096 here"


@pytest.mark.parametrize("optimizer", everyday(OPTIMIZERS, "adamw_torch", "adamw_8bit", "adafactor"))
@pytest.mark.parametrize("tuning", everyday(["lora", "full"], "lora"))
def test_every_optimizer_learns(settings, tiny, tmp_path, optimizer, tuning) -> None:
    training = {"max_steps": 2, "optimizer": optimizer, "scheduler": "constant", "warmup": 0}
    context = run(settings, tiny, tmp_path, tuning={"name": tuning, "rank": 4}, training=training)
    train(context)
    assert len(reported(context)) == 2
    name = "adapter_model.safetensors" if tuning == "lora" else "model.safetensors"
    before = load_file(tiny / "model.safetensors")
    for key, weight in load_file(context.job.model / name).items():
        if tuning == "full":
            assert not torch.equal(weight, before[key]), key
        elif "lora_B" in key:
            assert weight.abs().max() > 0, key


@pytest.mark.parametrize(("steps", "warmup", "rate"), [(4, 1.0, 1e-3), (1, 1.0, 1e-3), (4, 0.0, 1e-8), (1, 0.0, 1e-7)])
def test_a_polynomial_schedule_has_an_end_at_any_rate(steps: int, warmup: float, rate: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    rising = warmup_steps("polynomial", warmup, steps)
    schedule = get_scheduler(
        "polynomial", optimizer, rising, steps,
        scheduler_specific_kwargs=scheduler_arguments("polynomial", steps, rate),
    )  # fmt: skip
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert max(rates) == pytest.approx(rate) and 0 <= rates[-1] < rate


@pytest.mark.parametrize("scheduler", everyday(SCHEDULERS, "linear", "cosine_with_min_lr"))
def test_every_schedule_runs(settings, tiny, tmp_path, scheduler) -> None:
    context = run(settings, tiny, tmp_path, training={"epochs": 10, "scheduler": scheduler, "warmup": 0.1})
    train(context)
    rates = reported(context, "learning_rate")
    assert len(rates) == 30
    warm = [0.0, 1e-3 / 3, 2e-3 / 3]
    assert rates[:3] == ([1e-3] * 3 if scheduler == "constant" else pytest.approx(warm, abs=1e-6))
    assert max(rates) == pytest.approx(1e-3)
    if scheduler.startswith("constant"):
        assert rates[-1] == pytest.approx(1e-3)
    elif scheduler == "cosine_with_min_lr":
        assert 1e-4 <= rates[-1] < 2e-4
    elif scheduler == "inverse_sqrt":
        assert rates[-1] < 1e-3
    else:
        assert rates[-1] < 4e-4
