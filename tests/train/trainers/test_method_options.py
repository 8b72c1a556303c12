"""The options of methods reach the trainers: each loss and weight once, with what can be known of it by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from studio.jobs.run.worker import JobContext
from studio.methods import METHODS
from studio.methods.dpo import DPO_LOSSES
from studio.settings import Settings
from studio.train.loop.callbacks import JobCallback
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, logged, make_trainer, reported, write_rows
from tests.support.everyday import everyday

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


@pytest.mark.parametrize("loss", everyday(DPO_LOSSES, "sigmoid"))
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
        chosen = {"name": "simpo", "simpo_gamma": 1.5} if loss == "simpo" else {"name": "orpo", "orpo_loss": loss}
        context, trainer = pairs_run(settings, tiny, tmp_path, **chosen)
        first[loss] = reported(context)[0]
        margin = reported(context, "rewards/margins")[0]
        if loss == "orpo":
            assert type(trainer).__name__ == "OddsRatioTrainer"
            assert first[loss] == pytest.approx(reported(context, "nll_loss")[0] + BETA * LN2, rel=0.01)
        elif loss == "simpo":
            assert trainer.loss_type == "simpo"
            assert first[loss] == pytest.approx(math.log1p(math.exp(1.5 - margin)), rel=0.01), "no likelihood in it"
        else:
            assert (trainer.loss_type, trainer.cpo_alpha) == ("sigmoid", 1.0)
            assert first[loss] == pytest.approx(reported(context, "nll_loss")[0] + LN2, rel=0.15)
    assert len(set(first.values())) == 3


@pytest.mark.long
def test_a_kto_loss_without_a_kl_estimate(settings, tiny, tmp_path) -> None:
    context, trainer = pairs_run(settings, tiny, tmp_path, name="kto", kto_loss="apo_zero_unpaired")
    assert trainer.calculate_KL is False
    assert reported(context)[0] == pytest.approx(0.5, rel=1e-5)
    usual, _ = pairs_run(settings, tiny, tmp_path, name="kto", desirable_weight=2.0, undesirable_weight=2.0)
    assert reported(usual)[0] == pytest.approx(1.0, rel=1e-5), "the weights count"


@pytest.mark.parametrize("loss", everyday(["dapo", "grpo", "bnpo", "dr_grpo"], "dapo"))
def test_every_grpo_loss(settings, tiny, tmp_path, loss) -> None:
    context, trainer = pairs_run(settings, tiny, tmp_path, name="grpo", num_generations=2, grpo_loss=loss)
    assert trainer.loss_type == loss
    assert len(reported(context, "reward")) == 3


@pytest.mark.long
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


@pytest.mark.parametrize(
    "method", everyday([name for name in METHODS if not METHODS[name].online], "sft", "dpo", "kto")
)
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


@pytest.mark.parametrize("method", everyday(["dpo", "reward", "grpo"], "dpo"))
def test_accumulation_does_not_change_what_is_learned(settings, tiny, tmp_path, method) -> None:
    online = METHODS[method].online
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
