"""Broken weights, early stopping and the best checkpoint, in runs of a tiny model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import FailedRunError, InputError, InputErrors, StoppedError, StudioError
from studio.jobs import JobFolder, Summaries, read_events, request_stop
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import last_whole, seal, whole_steps
from studio.jobs.store.request import Branch, changed_config, write_request
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from studio.train.loop.best import best_of, scores, since_better, watched
from studio.train.loop.callbacks import JobCallback
from studio.train.loop.health import Health
from studio.train.loop.watching import Watching, load_best
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]


def run(settings: Settings, tiny: Path, tmp_path: Path, **sections: dict[str, Any]) -> JobContext:
    return job_for(settings, tiny, write_rows(tmp_path / "rows.jsonl", ROWS), **sections)


def notices(context: JobContext, level: str = "warning") -> list[dict[str, Any]]:
    events, _ = read_events(context.job.events_path)
    return [event for event in events if event["kind"] == "notice" and event["level"] == level]


# ---- broken numbers


def spoil(patch: pytest.MonkeyPatch, step: int, gradients: bool) -> None:
    """Put NaN into a weight before a step, or infinity into a gradient of it."""

    def on_step_begin(self: Any, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step + 1 == step:
            weight = next(one for name, one in model.named_parameters() if "lora_B" in name and one.requires_grad)
            if gradients:
                weight.register_hook(lambda gradient: gradient * math.inf)
            else:
                weight.data[0, 0] = math.nan

    patch.setattr(Watching, "on_step_begin", on_step_begin)


@pytest.mark.parametrize(
    ("step", "gradients", "text"),
    [
        (5, False, "the loss became nan at step 5"),
        (4, False, "the weights contain NaN or inf at step 4"),  # a checkpoint was due: none is written
        pytest.param(5, True, "the gradient norm became", marks=pytest.mark.long),
    ],
)
def test_broken_numbers_end_the_run_and_the_last_good_checkpoint_stays(
    settings, tiny, tmp_path, monkeypatch, step, gradients, text
) -> None:
    spoil(monkeypatch, step, gradients)
    context = run(settings, tiny, tmp_path, training={"save_steps": 2, "epochs": 4, "keep_best": False})
    with pytest.raises(FailedRunError) as failed:
        train(context)
    assert text in failed.value.what
    assert failed.value.change == {"training.learning_rate": 2e-4}
    good = last_whole(context.job.checkpoints)
    assert good is not None and good.step == (2 if step == 4 else 4)
    assert f"The checkpoint of step {good.step} is intact" in failed.value.fix
    assert not (context.job.checkpoints / "checkpoint-6").exists()
    assert all(weight.isfinite().all() for weight in load_file(good.path / "adapter_model.safetensors").values())
    assert len(reported(context)) == (step if step == 5 else 3), "the broken step's numbers are in the curve"


def test_memory_and_disk_are_looked_at_while_it_runs(settings, tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("studio.train.loop.watching.memory", lambda: (16 * 10**9, 10**8))
    monkeypatch.setattr("studio.train.loop.watching.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("studio.train.loop.health.DISK_LEFT", 1.0)
    monkeypatch.setattr("studio.train.loop.health.DISK_FEW", 10**18)
    context = run(settings, tiny, tmp_path, data={"validation": 0})
    train(context)
    told = {one["text"].split(":")[0]: one for one in notices(context)}
    assert set(told) == {"memory is nearly full", "the disk is nearly full"}
    assert len(notices(context)) == 2, "each once, in six steps"
    assert told["memory is nearly full"]["change"] == {"training.micro_batch_size": 1}
    assert told["the disk is nearly full"]["change"] == {"training.save_total_limit": 1}


# ---- which is the best


def test_scores_come_from_the_history() -> None:
    history = [{"step": 0, "eval_loss": 9.0}, {"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 3.0}]
    assert scores(history, "eval_loss") == [(2, 3.0)], "before the first step nothing was learned"
    found = [(2, 3.0), (4, 2.0), (6, 2.0), (8, math.nan), (10, 2.5)]
    assert best_of(found, False) == (4, 2.0) and best_of(found, True) == (2, 3.0) and best_of([], True) is None
    assert since_better(found, False, 0.0) == 3
    assert since_better(found, False, 1.0) == 4, "better by 1 is not more than 1"
    assert since_better([(1, 1.0), (2, 2.0)], True, 0.5) == 0


@pytest.mark.parametrize(
    ("method", "asked", "name", "higher"),
    [
        ("sft", "auto", "eval_loss", False),
        ("dpo", "auto", "eval_loss", False),
        ("dpo", "rewards/accuracies", "eval_rewards/accuracies", True),
        ("grpo", "auto", "eval_reward", True),
        ("ppo", "eval_reward", "eval_reward", True),
    ],
)
def test_each_method_has_its_metric(method: str, asked: str, name: str, higher: bool) -> None:
    config = build(RunConfig, {"method": {"name": method}, "training": {"metric_for_best_model": asked}})
    watch = watched(config)
    assert (watch.name, watch.higher) == (name, higher)


# Learning these rows makes other words less likely from the first step on.
OTHER = [{"messages": [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": "zebra quokka lynx"}]}]
OFTEN = {"learning_rate": 0.05, "scheduler": "constant", "warmup": 0, "epochs": 2, "eval_steps": 1, "save_steps": 2}


def validations(context: JobContext) -> dict[int, float]:
    events, _ = read_events(context.job.events_path)
    found = [(event["step"], event["values"]) for event in events if event["kind"] == "metric"]
    return {step: values["eval_loss"] for step, values in found if "eval_loss" in values and step}


def test_the_best_checkpoint_is_never_removed_and_its_weights_can_be_saved(settings, tiny, tmp_path) -> None:
    training = {**OFTEN, "save_total_limit": 1, "load_best_model_at_end": True}
    other = {"validation": str(write_rows(tmp_path / "other.jsonl", OTHER))}
    context = run(settings, tiny, tmp_path, training=training, data=other)
    train(context)
    losses = validations(context)
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(1, 9)) and best < 7
    folder = context.job.checkpoints
    assert whole_steps(folder) == [best, 8], "the newest, and the best beside it"
    noted = json.loads((folder / "best.json").read_text())
    assert noted["step"] == best and noted["value"] == pytest.approx(losses[best], abs=1e-6)
    saved = load_file(context.job.model / "adapter_model.safetensors")
    kept = load_file(folder / f"checkpoint-{best}" / "adapter_model.safetensors")
    last = load_file(folder / "checkpoint-8" / "adapter_model.safetensors")
    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    assert any(not torch.equal(saved[name], last[name]) for name in last)
    assert any(f"the weights of step {best} are saved" in one["text"] for one in notices(context, "info"))
    assert Summaries().of(context.job).results["training"]["saved_step"] == best


@pytest.mark.parametrize(
    ("method", "tuning"),
    [("sft", "full"), *(pytest.param(method, "lora", marks=pytest.mark.long) for method in ("ppo", "grpo"))],
)
def test_the_best_weights_are_saved_with_every_kind_of_trainer(settings, tiny, tmp_path, method, tuning) -> None:
    sections: dict[str, Any] = {"tuning": {"name": tuning}}
    training = {**OFTEN, "epochs": 1, "load_best_model_at_end": True}
    context = run(settings, tiny, tmp_path, **sections, training=training)
    if method != "sft":
        options = {"name": method, "rewards": ["length"], "reward_length": 6, "max_completion_length": 8}
        options |= {"num_generations": 2} if method == "grpo" else {"ppo_epochs": 1}
        rows = write_rows(tmp_path / "sums.jsonl", demo_rows("sums_train.jsonl", 12))
        context = job_for(
            settings, tiny, rows, method=options, **sections, data={"max_length": 512},
            training={**training, "batch_size": 4},
        )  # fmt: skip
    train(context)
    noted = json.loads((context.job.checkpoints / "best.json").read_text())
    assert noted["metric"] == ("eval_loss" if method == "sft" else "eval_reward")
    name = "adapter_model.safetensors" if tuning == "lora" else "model.safetensors"
    saved = load_file(context.job.model / name)
    kept = load_file(context.job.checkpoints / f"checkpoint-{noted['step']}" / name)
    assert saved.keys() == kept.keys() and all(torch.equal(saved[one], kept[one]) for one in kept)


def test_full_tuning_keeps_no_best_unless_asked(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path, tuning={"name": "full"}, training=OFTEN)
    train(context)
    assert whole_steps(context.job.checkpoints) == [4, 6] and not (context.job.checkpoints / "best.json").exists()


# ---- early stopping

EARLY = {"early_stopping": 2, "early_stopping_threshold": 100.0, "eval_steps": 1, "save_steps": 100, "epochs": 4}


def test_a_run_stops_early_and_says_so(settings, tiny, tmp_path) -> None:
    context = run(settings, tiny, tmp_path, training=EARLY)
    train(context)
    assert list(validations(context)) == [1, 2, 3]
    (told,) = [one["text"] for one in notices(context, "info") if "stopped early" in one["text"]]
    assert told.startswith("stopped early at step 3 of 12: the validation loss did not improve in 2 validations")
    result = Summaries().of(context.job).results["training"]
    assert result["steps"] == 3 and result["stopped_early"] == told
    assert whole_steps(context.job.checkpoints)[-1] == 3
    assert (context.job.model / "adapter_model.safetensors").exists()


def test_waiting_is_counted_on_after_a_resume(settings, tiny, tmp_path) -> None:
    context = begin(settings, tiny, tmp_path, **{**EARLY, "early_stopping": 3})
    again = JobContext(context.job, settings)
    train(again)
    assert list(validations(again)) == [1, 2, 3, 4], "3 waits: of steps 2 and 3 before, and 4 after"
    assert Summaries().of(context.job).results["training"]["steps"] == 4


@pytest.mark.parametrize(
    ("training", "data", "option"),
    [
        ({"early_stopping": 2}, {"validation": 0}, "training.early_stopping"),
        ({"load_best_model_at_end": True}, {"validation": 0}, "training.load_best_model_at_end"),
        ({"keep_best": True}, {"validation": 0}, "training.keep_best"),
        ({"early_stopping": 2, "eval_steps": 50}, {}, "training.eval_steps"),
        ({"load_best_model_at_end": True, "metric_for_best_model": "bleu"}, {}, "training.metric_for_best_model"),
    ],
)
def test_what_cannot_be_is_refused_before_loading(settings, tiny, tmp_path, training, data, option) -> None:
    context = run(settings, tiny, tmp_path, training=training, data=data)
    with pytest.raises(InputErrors) as refused:
        train(context)
    assert refused.value.where == option and refused.value.fix
    begun = [event.get("phase") for event in read_events(context.job.events_path)[0]]
    assert "loading model" not in begun


# ---- going on


def begin(settings: Settings, tiny: Path, tmp_path: Path, **training: Any) -> JobContext:
    """A run that was stopped at step 3 of 12, in the line again."""
    context = run(settings, tiny, tmp_path, training={"epochs": 4, **training})

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            request_stop(context.job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobCallback, "on_step_begin", stop)
        with pytest.raises(StoppedError, match="step 3 of 12"):
            train(context)
    context.job.stop_path.unlink()
    write_state(context.job.state_path, JobState(status="running", attempt=2))
    return context


@pytest.mark.long
def test_other_data_end_a_run_that_goes_on_and_touch_nothing(settings, tiny, tmp_path) -> None:
    job = begin(settings, tiny, tmp_path, keep_checkpoints="none").job
    rows, recorded, kept = tmp_path / "rows.jsonl", job.environment(), whole_steps(job.checkpoints)
    assert kept[-1] == 3 and recorded["data"]["sources"]
    for other in (ROWS[:2], [*ROWS[6:], *ROWS[:6]]):
        write_rows(rows, other)
        with pytest.raises(InputError, match="the data has changed") as refused:
            train(JobContext(job, settings))
        assert refused.value.where == str(rows)
        assert whole_steps(job.checkpoints) == kept and job.environment() == recorded
    write_rows(rows, ROWS)
    train(JobContext(job, settings))
    assert Summaries().of(job).results["training"]["steps"] == 12


@pytest.mark.parametrize(
    ("steps", "own", "refused"),
    [(2, True, True), *(pytest.param(3, own, not own, marks=pytest.mark.long) for own in (False, True))],
)
def test_a_run_that_is_over_before_it_begins_is_refused(settings, tiny, tmp_path, steps, own, refused) -> None:
    job = begin(settings, tiny, tmp_path, keep_checkpoints="none").job
    request = job.request
    config = changed_config(request.config, {"training.max_steps": steps})
    branch = Branch("other", 2 if own else 3)
    write_request(job.path, replace(request, config=config, branch=branch))
    again = JobContext(JobFolder(job.path), settings)
    if refused:
        with pytest.raises(StudioError, match="would end before step 3"):
            train(again)
        assert whole_steps(job.checkpoints)[-1] == 3
    else:  # ended while it saved: only that is left to do
        train(again)
        assert Summaries().of(job).results["training"]["steps"] == 3


@pytest.mark.long
def test_a_branch_waits_anew_and_knows_the_best_that_came_along(settings, tiny, tmp_path, monkeypatch) -> None:
    training = {**EARLY, "early_stopping": 2, "load_best_model_at_end": True, "save_total_limit": 1}
    context = begin(settings, tiny, tmp_path, **{**training, "early_stopping": 3})
    best = json.loads((context.job.checkpoints / "best.json").read_text())["step"]
    request = context.job.request
    config = changed_config(request.config, {"training.early_stopping": 2})
    write_request(context.job.path, replace(request, config=config, branch=Branch("other", 3)))
    again, before = JobContext(JobFolder(context.job.path), settings), []
    monkeypatch.setattr(Health, "go_on", lambda self, losses: before.extend(losses))
    train(again)
    assert before == pytest.approx(reported(again)[:3], abs=1e-4), "what explodes is compared with these"
    assert Summaries().of(context.job).results["training"]["steps"] == 5, "the waits of steps 2 and 3 are over"
    found = validations(again)
    assert best <= 3 and list(found) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("best", "ending"), [(2, "2.5, was the best"), (3, "2.5, was the best among the checkpoints")])
def test_a_worse_checkpoint_is_not_called_the_best(settings, tiny, tmp_path, best: int, ending: str) -> None:
    context, loaded = run(settings, tiny, tmp_path), []
    folder = context.job.checkpoints
    (folder / "checkpoint-2").mkdir(parents=True)
    seal(folder / "checkpoint-2", 2, {})
    history = [{"step": 2, "eval_loss": 2.5}, {"step": 3, "eval_loss": 2.4 if best == 3 else 2.6}]
    trainer = SimpleNamespace(
        args=SimpleNamespace(output_dir=str(folder)), _load_from_checkpoint=loaded.append,
        state=SimpleNamespace(log_history=history, global_step=4),
    )  # fmt: skip
    assert load_best(context, trainer, watched(build(RunConfig, {}))) == 2 and len(loaded) == 1
    (told,) = notices(context, "info")
    assert told["text"].startswith("the weights of step 2 are saved") and told["text"].endswith(ending)
