"""How many rows are computed at a time changes neither the rows of an update nor its loss, nor that of a validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.batch import epoch_order
from studio.jobs.run.worker import JobContext
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from studio.train.worker import train
from tests.parity.made import Made, job_for, logged, make_trainer, reported, trained_weights, write_rows
from tests.support.everyday import everyday

COUNT, BATCH = 21, 8  # the last update of an epoch has 5 rows left, of which a micro-batch of 2 leaves one over
TOLERANCE = 1e-5
TOKENS = 200
METRICS = (
    "rewards/accuracies", "rewards/margins", "rewards/chosen", "accuracy", "margin", "kl", "nll_loss", "reward",
)  # fmt: skip
WORDS = [(7 * n) % 23 + 1 for n in range(COUNT)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Count {n}"}, {"role": "assistant", "content": "word " * many}]}
    for n, many in enumerate(WORDS)
]
TEXTS = [{"text": f"{n} and " * many} for n, many in enumerate(WORDS)]
PAIRS = [
    {"prompt": f"{n}+1=", "chosen": f"{n + 1} " * many, "rejected": "no idea " * ((3 * many) % 11 + 1)}
    for n, many in enumerate(WORDS)
]
SUMS = [{"prompt": f"{n}+{many}=", "answer": str(n + many)} for n, many in enumerate(WORDS)]
ROWS = {
    "sft": CHATS, "pretrain": TEXTS, "dpo": PAIRS, "reward": PAIRS, "orpo": PAIRS, "simpo": PAIRS, "kto": PAIRS,
    "grpo": SUMS,
}  # fmt: skip
# A pair is two answers to kto; grpo writes two to a prompt, and fills the last batch up from the epoch's first prompts.
UPDATES = {"kto": 6, "grpo": 6}
OPTIONS = {
    "grpo": {
        "rewards": ["length"], "reward_length": 6, "num_generations": 2, "max_completion_length": 8, "beta": 0.1,
    },
}  # fmt: skip


def made(settings: Settings, tiny: Path, folder: Path, method: str, **training: Any) -> Made:
    folder.mkdir()
    rows = write_rows(folder / "rows.jsonl", ROWS[method])
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": str(rows), "max_length": 256},
        "method": {"name": method, **OPTIONS.get(method, {})},
        "tuning": {"name": "lora", "rank": 4},
        "training": {"epochs": 1, "batch_size": BATCH, "learning_rate": 1e-3, "eval_steps": 3, **training},
    }
    return make_trainer(raw, tiny, folder / "out", settings)


def few_tokens(one: Made) -> None:
    """So few at a time that an update has several micro-batches, of other numbers of rows."""
    one.setup.plan = replace(one.setup.plan, micro_tokens=TOKENS)


@pytest.mark.parametrize("method", everyday(ROWS, "sft", "kto"))
def test_the_loss_of_each_update_stays(settings, tiny, tmp_path, method: str) -> None:
    found: dict[str, Any] = {}
    for name, training in {"whole": {"micro_batch_size": 8}, "two": {"micro_batch_size": 2}, "auto": {}}.items():
        one = made(settings, tiny, tmp_path / name, method, **training)
        if name == "auto":
            few_tokens(one)
        one.trainer.train()
        figures = [key for entry in one.trainer.state.log_history for key in entry if key.startswith("eval_")]
        found[name] = {
            "loss": logged(one.trainer), "eval_loss": logged(one.trainer, "eval_loss"),
            "weights": trained_weights(one.trainer),
            **{key: logged(one.trainer, key) for key in METRICS},
        }  # fmt: skip
        assert len(found[name]["loss"]) == UPDATES.get(method, 3) and figures
    for name in ("two", "auto"):
        for key, values in found["whole"].items():
            if key == "weights":
                for weight, tensor in values.items():
                    assert float((found[name][key][weight] - tensor).abs().max()) < 1e-4, weight
            else:
                assert found[name][key] == pytest.approx(values, abs=TOLERANCE, rel=TOLERANCE), (name, key)


def test_an_update_has_the_rows_of_the_order(settings, tiny, tmp_path, monkeypatch) -> None:
    one = made(settings, tiny, tmp_path / "one", "sft")
    few_tokens(one)
    taken: list[list[list[list[int]]]] = []
    step = one.trainer.training_step

    def watch(model: Any, inputs: Any, *more: Any) -> Any:
        shown = [
            [
                ids[: int(mask.sum())].tolist()
                for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)
            ]
            for part in inputs.micro_batches
        ]
        taken.append(shown)
        for part in inputs.micro_batches:
            assert int(part["attention_mask"].sum()) <= TOKENS or len(part["input_ids"]) == 1, "padding is not computed"
        return step(model, inputs, *more)

    monkeypatch.setattr(one.trainer, "training_step", watch)
    one.trainer.train()
    rows = one.setup.train
    order = epoch_order(len(rows), one.setup.config.training.seed)
    for update, parts in enumerate(taken):
        wanted = [rows[at].input_ids for at in order[BATCH * update : BATCH * (update + 1)]]
        assert sorted(ids for part in parts for ids in part) == sorted(wanted)
        assert len(parts) > 1
    assert len({len(part) for parts in taken for part in parts}) > 1, "not the same number of rows each time"
    assert one.trainer.tokens_seen == sum(row.length for row in rows), "padding is not counted"


def test_accuracy_is_that_of_the_whole_update(settings, tiny, tmp_path) -> None:
    accuracies = []
    for micro in (8, 1):
        one = made(settings, tiny, tmp_path / str(micro), "sft", micro_batch_size=micro, max_steps=1)
        one.trainer.train()
        accuracies.append(one.trainer.accuracy)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-6)


def test_a_run_that_goes_on_computes_as_it_began(settings, tiny, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", CHATS)
    context = job_for(
        settings, tiny, rows, training={"batch_size": 8, "epochs": 1, "save_steps": 1}, data={"max_length": 256}
    )
    train(context)
    environment = context.job.environment()
    first = environment["plan"]
    context.environment(plan={**first, "micro_batch": 2, "accumulation": 4, "micro_tokens": 96})
    write_state(context.job.state_path, JobState(status="running", attempt=2))
    train(JobContext(context.job, settings))
    again = context.job.environment()["plan"]
    assert (again["micro_batch"], again["micro_tokens"]) != (first["micro_batch"], first["micro_tokens"])
    assert again["micro_tokens"] == 96 and again["choices"]["training.micro_batch_size"]["source"] == "the run so far"
    assert reported(context)
    assert build(RunConfig, context.config, "job.yaml").training.micro_batch_size == "auto"
