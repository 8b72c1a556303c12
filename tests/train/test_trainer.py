"""Mechanics of a training run on a tiny random model with the real tokenizer: what moves, what counts, what stops.

And the options of methods and training: each loss, optimizer and schedule once, with what can be known of it by hand.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, get_scheduler

from studio.config import RunConfig
from studio.config.load import build
from studio.config.method import DPO_LOSSES, ONLINE
from studio.config.training import TrainingConfig
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import Summaries, read_events, request_stop
from studio.jobs.checkpoints import best_step
from studio.jobs.worker import JobContext
from studio.settings import Settings
from studio.train.callbacks import JobCallback
from studio.train.methods import METHODS
from studio.train.setup import scheduler_arguments, warmup_steps
from studio.train.tuning import PREPARE
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, logged, make_trainer, reported, write_rows

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
        PREPARE["lora"](model, tuning, "CAUSAL_LM")


# ---- options of methods

LN2 = math.log(2)
BETA = 0.1
# Loss of a pair while model and reference are still the same, so that every log-ratio is 0 (the papers' formulas).
FIRST_LOSS = {
    "sigmoid": LN2, "sigmoid_norm": LN2, "robust": LN2, "aot": LN2, "aot_unpaired": LN2, "hinge": 1.0,
    "ipo": (1 / (2 * BETA)) ** 2, "nca_pair": 2 * LN2, "bco_pair": 2 * LN2, "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "apo_zero": 1.0, "apo_down": 1.0, "discopop": (LN2 + 1) / 2,
}  # fmt: skip


def pairs_run(settings: Settings, tiny: Path, tmp_path: Path, **method: Any) -> tuple[JobContext, Any]:
    """Three steps on the demo's rows of a method; the trainer, too."""
    online = method["name"] in ("ppo", "grpo")
    rows = demo_rows("sums_train.jsonl" if online else "pairs_train.jsonl", 12)
    if online:
        method = {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8, **method}
    context = job_for(
        settings, tiny, write_rows(tmp_path / "rows.jsonl", rows), method=method, tuning={"rank": 4},
        data={"validation": 0, "max_length": 512}, training={"max_steps": 3, "batch_size": 4},
    )  # fmt: skip
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        watch = JobCallback.watch
        patch.setattr(JobCallback, "watch", lambda self, trainer: (made.append(trainer), watch(self, trainer)))
        train(context)
    assert len(reported(context)) == 3
    assert all(math.isfinite(loss) for loss in reported(context))
    moved = [weight for name, weight in made[0].model.named_parameters() if "lora_B" in name and weight.requires_grad]
    assert all(weight.abs().max() > 0 for weight in moved), "every B left its zero"
    return context, made[0]


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_every_dpo_loss(settings, tiny, tmp_path, loss) -> None:
    options: dict[str, Any] = {"label_smoothing": 0.001} if loss == "exo_pair" else {}
    # The sft loss alone is refused: it has nothing to do with the worse answers.
    words = ["sigmoid", "sft"] if loss == "sft" else [loss]
    context, trainer = pairs_run(settings, tiny, tmp_path, name="dpo", dpo_loss=words, **options)
    assert trainer.loss_types == words
    first = reported(context)[0]
    if loss in FIRST_LOSS:
        assert first == pytest.approx(FIRST_LOSS[loss], rel=1e-4)
    elif loss == "sft":
        assert first == pytest.approx(LN2 + math.log(4096), rel=0.02), "a random model finds every token as likely"
    else:
        assert loss == "exo_pair"
        # KL of (1/2, 1/2) from (1 - e, e), Ji et al. 2024.
        assert first == pytest.approx(0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(0.5 / 0.001), rel=1e-3)


def test_dpo_losses_are_mixed_by_their_weights(settings, tiny, tmp_path) -> None:
    context, trainer = pairs_run(
        settings, tiny, tmp_path, name="dpo", dpo_loss="sigmoid, hinge", dpo_loss_weights="1, 0.25"
    )
    assert trainer.loss_weights == [1.0, 0.25]
    assert reported(context)[0] == pytest.approx(LN2 + 0.25, rel=1e-5)


def test_label_smoothing_and_beta_reach_dpo(settings, tiny, tmp_path) -> None:
    _, trainer = pairs_run(settings, tiny, tmp_path, name="dpo", label_smoothing=0.1, beta=0.5)
    assert (trainer.label_smoothing, trainer.beta) == (0.1, 0.5)


def test_orpo_simpo_and_cpo(settings, tiny, tmp_path) -> None:
    first = {}
    for loss in ("orpo", "simpo", "cpo"):
        context, trainer = pairs_run(settings, tiny, tmp_path, name="orpo", orpo_loss=loss, simpo_gamma=1.5)
        first[loss] = reported(context)[0]
        nll = reported(context, "nll_loss")[0]
        margin = reported(context, "rewards/margins")[0]
        if loss == "orpo":
            assert type(trainer).__name__ == "OddsRatioTrainer"
            assert first[loss] == pytest.approx(nll + BETA * LN2, rel=0.01)
        elif loss == "simpo":
            assert trainer.loss_type == "simpo"
            assert first[loss] == pytest.approx(math.log1p(math.exp(1.5 - margin)), rel=0.01), "no likelihood in it"
        else:
            assert (trainer.loss_type, trainer.cpo_alpha) == ("sigmoid", 1.0)
            assert first[loss] == pytest.approx(nll + LN2, rel=0.15)
    assert len(set(first.values())) == 3


def test_a_kto_loss_without_a_kl_estimate(settings, tiny, tmp_path) -> None:
    context, trainer = pairs_run(settings, tiny, tmp_path, name="kto", kto_loss="apo_zero_unpaired")
    assert trainer.calculate_KL is False
    assert reported(context)[0] == pytest.approx(0.5, rel=1e-5)
    usual, _ = pairs_run(settings, tiny, tmp_path, name="kto", desirable_weight=2.0, undesirable_weight=2.0)
    assert reported(usual)[0] == pytest.approx(1.0, rel=1e-5), "the weights count"


@pytest.mark.parametrize("loss", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_every_grpo_loss(settings, tiny, tmp_path, loss) -> None:
    context, trainer = pairs_run(settings, tiny, tmp_path, name="grpo", num_generations=2, grpo_loss=loss)
    assert trainer.loss_type == loss
    assert len(reported(context, "reward")) == 3


def test_rloo_and_the_penalty_of_beta(settings, tiny, tmp_path) -> None:
    _, trainer = pairs_run(settings, tiny, tmp_path, name="grpo", num_generations=2, grpo_algorithm="rloo")
    assert type(trainer).__name__ == "LeaveOneOutTrainer"
    assert trainer.beta == 0
    context, trainer = pairs_run(settings, tiny, tmp_path, name="grpo", num_generations=2, beta=0.2)
    assert trainer.beta == 0.2
    assert reported(context, "kl")[0] == pytest.approx(0, abs=1e-6)
    assert reported(context, "kl")[-1] > 0


def test_a_reward_run_centres_its_scores(settings, tiny, tmp_path) -> None:
    usual, _ = pairs_run(settings, tiny, tmp_path, name="reward")
    centred, _ = pairs_run(settings, tiny, tmp_path, name="reward", center_rewards_coefficient=10.0)
    assert reported(usual)[0] == pytest.approx(LN2, abs=0.1)
    assert reported(centred)[0] > reported(usual)[0] + 0.1
    assert reported(centred)[-1] < reported(centred)[0]


def test_a_validation_of_online_answers_scores_its_own_rows(settings, tiny, tmp_path) -> None:
    """The reward looks its row up by place, and places of training and validation are not the same."""
    asked = [{"prompt": [{"role": "user", "content": f"Say {n}"}], "answer": str(n)} for n in range(12)]
    file = tmp_path / "reward.py"
    file.write_text("def score(prompts, completions, answer, **rest):\n    return [float(a) for a in answer]\n")
    validation = write_rows(tmp_path / "validation.jsonl", [{**row, "answer": "100"} for row in asked[:3]])
    context = job_for(
        settings, tiny, write_rows(tmp_path / "rows.jsonl", asked), tuning={"rank": 4},
        method={
            "name": "grpo", "rewards": ["python"], "reward_python": f"{file}:score", "trust_reward_code": True,
            "num_generations": 4, "max_completion_length": 4,
        },
        data={"validation": str(validation)}, training={"max_steps": 2, "batch_size": 4, "eval_steps": 1},
    )  # fmt: skip
    train(context)
    assert reported(context, "eval_reward") == [100.0] * 3
    assert all(reward < 12 for reward in reported(context, "reward"))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ONLINE])
def test_every_token_is_counted_once_an_epoch(settings, tiny, tmp_path, method) -> None:
    file = {"sft": "train.jsonl", "pretrain": "text_train.jsonl"}.get(method, "pairs_train.jsonl")
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows(file, 11))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0},
        "method": {"name": method},
        "training": {"epochs": 1, "batch_size": 4, "micro_batch_size": 2},
    }
    made = make_trainer(raw, tiny, tmp_path / "out", settings)
    made.trainer.train()
    units = made.setup.train
    assert made.trainer.tokens_seen == sum(unit.tokens for unit in units)
    # The first token of a text has none before it that could predict it; a score is no token.
    supervised = sum(unit.supervised for unit in units) - (len(units) if method == "pretrain" else 0)
    assert made.trainer.supervised_seen == (0 if method == "reward" else supervised)


@pytest.mark.parametrize("method", ["dpo", "reward", "grpo"])
def test_accumulation_does_not_change_what_is_learned(settings, tiny, tmp_path, method) -> None:
    online = method in ONLINE
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("sums_train.jsonl" if online else "pairs_train.jsonl", 8))
    options = {"rewards": ["length"], "reward_length": 6, "max_completion_length": 8, "num_generations": 2}
    found = []
    for micro in (4, 1):
        raw = {
            "model": {"path": str(tiny), "dtype": "float32"},
            "data": {"train": [{"path": str(rows)}], "validation": 0},
            "method": {"name": method, **(options if online else {})},
            "training": {"max_steps": 2, "batch_size": 4, "micro_batch_size": micro, "learning_rate": 1e-3},
        }
        made = make_trainer(raw, tiny, tmp_path / f"out-{micro}", settings)
        assert (made.setup.plan.micro_batch, made.setup.plan.accumulation) == (micro, 4 // micro)
        made.trainer.train()
        found.append(logged(made.trainer, "reward" if online else "loss"))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


# ---- options of training


def test_noise_on_the_embeddings_changes_training_and_not_the_validation(settings, tiny, tmp_path) -> None:
    plain, noisy = (
        run(settings, tiny, tmp_path, method={"neftune_noise_alpha": alpha}, training={"max_steps": 3})
        for alpha in (0, 50)
    )
    for context in (plain, noisy):
        train(context)
    assert abs(reported(noisy)[0] - reported(plain)[0]) > 1e-3
    assert reported(noisy, "eval_loss")[0] == reported(plain, "eval_loss")[0]


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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("tuning", ["lora", "full"])
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


@pytest.mark.parametrize("scheduler", SCHEDULERS)
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
