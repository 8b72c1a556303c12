"""The preference measure: plain transformers' log-probabilities, and the accuracies that TRL's trainers report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.config import RunConfig
from studio.config.jobs import HELD_OUT
from studio.data.masks.masker import Masker
from studio.data.prepare.pipeline import prepare_data
from studio.errors import InputError
from studio.evaluate.heldout import held_out
from studio.evaluate.measures import Preference
from studio.evaluate.questions import read_examples, read_questions
from studio.evaluate.ratings import accuracy, judged, likelihoods
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.settings import ASSETS, Settings
from tests.parity.made import demo_rows, make_trainer, write_rows

PAIRS = ASSETS / "demo" / "pairs_test.jsonl"


def trained(settings: Settings, tiny: Path, folder: Path, method: str, **options: Any) -> tuple[Path, Path, float]:
    """Folder of an adapter, its held-out rows, and the accuracy that the trainer told of them at the end."""
    rows = write_rows(folder / "rows.jsonl", demo_rows("pairs_train.jsonl", 16))
    rest = write_rows(folder / "rest.jsonl", demo_rows("pairs_test.jsonl", 8))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": str(rest)},
        "method": {"name": method, **options},
        "tuning": {"name": "lora"},
        "training": {"max_steps": 4, "batch_size": 8, "learning_rate": 3e-3, "eval_steps": 2},
    }
    made = make_trainer(raw, tiny, folder / "out", settings)
    made.trainer.train()
    told = [entry["eval_rewards/accuracies"] for entry in made.trainer.state.log_history if "eval_loss" in entry]
    made.trainer.save_model(str(folder / "model"))
    return folder / "model", rest, told[-1]


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("dpo", "reward_accuracy"),
        pytest.param("kto", "reward_accuracy", marks=pytest.mark.long),
        pytest.param("orpo", "preference_accuracy", marks=pytest.mark.long),
        pytest.param("simpo", "preference_accuracy", marks=pytest.mark.long),
    ],
)
def test_the_accuracy_is_the_trainers(settings: Settings, tiny: Path, tmp_path: Path, method: str, key: str) -> None:
    model, rest, told = trained(settings, tiny, tmp_path, method)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    kind, examples = read_examples(rest, tokenizer, kind="rated" if method == "kto" else "pairs")
    answers = judged(kind, examples, Masker(tokenizer), "data")
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), model).eval()
    after = likelihoods(tuned, answers, lambda done: None)
    with tuned.disable_adapter():
        before = likelihoods(tuned, answers, lambda done: None)
    report = Preference(answers, kind == "pairs").report(before, after)
    found = report[key] if key in report else report["after"][key]
    assert found == pytest.approx(told, abs=1e-4)
    assert before != after and len(report["rows"]) == (16 if method == "kto" else 8)


def test_likelihoods_are_those_of_plain_transformers(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    kind, examples = read_examples(PAIRS, tokenizer, 5, kind="pairs")
    answers = judged(kind, examples, Masker(tokenizer), "data")
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    counted: list[int] = []
    ours = likelihoods(model, answers, counted.append)
    assert kind == "pairs" and len(ours) == 10 == counted[-1]
    for answer, summed in zip(answers, ours, strict=True):
        ids = torch.tensor([answer.prompt_ids + answer.answer_ids])
        with torch.no_grad():
            plain = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert summed == pytest.approx(float(plain[len(answer.prompt_ids) - 1 :].sum()), abs=1e-3)


def test_texts_are_shown_and_pairs_stay_together(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    kind, examples = read_examples(PAIRS, tokenizer, 3, kind="pairs")
    answers = judged(kind, examples, Masker(tokenizer), "data")
    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()[:3]]
    report = Preference(answers, True).report([-10.0 * (at + 1) for at in range(6)], [-1.0] * 6)
    for shown, row in zip(report["rows"], rows, strict=True):
        assert shown["chosen"].strip() == row["chosen"][-1]["content"].strip()
        assert shown["rejected"].strip() == row["rejected"][-1]["content"].strip()
        assert shown["prompt"] and shown["prompt"] in json.dumps(row, ensure_ascii=False)
    # Equal sums are no preference for the chosen answer, unless it is the longer one.
    sizes = [len(one.answer_ids) for one in answers]
    assert [row["after_ok"] for row in report["rows"]] == [sizes[at] > sizes[at + 1] for at in (0, 2, 4)]
    assert report["reward_accuracy"] == accuracy(answers, [float(at) for at in range(6)]) == 0.0


def test_what_cannot_be_compared_is_said(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    good = [{"prompt": f"Say {n}", "completion": f"{n}", "label": True} for n in range(3)]
    kind, examples = read_examples(write_rows(tmp_path / "good.jsonl", good), tokenizer, kind="rated")
    assert kind == "rated"
    with pytest.raises(InputError, match="no answer is rated bad"):
        judged(kind, examples, Masker(tokenizer), "good.jsonl")
    with pytest.raises(InputError, match="not questions with an expected answer"):
        read_questions(PAIRS, tokenizer)
    # A run on answers reads rated rows as it would train on them.
    assert read_examples(tmp_path / "good.jsonl", tokenizer, kind="answers")[0] == "answers"


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_runs_own_rows_are_found(settings: Settings, tiny: Path, tmp_path: Path, method: str) -> None:
    """Of a pair, KTO may have held out one answer and trained on the other."""
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 20))
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny)}, "method": {"name": method},
            "data": {"train": [{"path": str(rows)}], "validation": 0.2},
        }
    )  # fmt: skip
    run: JobFolder = create_job(settings.jobs, "train", "own", config.model_dump(mode="json"))
    write_json(run.environment_path, {"base_model": {"name": str(tiny), "path": str(tiny)}})
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    kind = config.method.kind.rows
    answers = judged(kind, held_out(run, tokenizer, settings), Masker(tokenizer), HELD_OUT)
    prepared = prepare_data(config.data, config.method, tokenizer, settings, seed=config.training.seed)
    told = sorted((one.row, one.answer_ids, one.good) for one in answers)
    if method == "kto":
        assert told == sorted((unit.row, list(unit.completion_ids), unit.label) for unit in prepared.validation)
        assert len({row for row, _, _ in told}) > len(told) / 2
    else:
        both = [((unit.row, list(unit.chosen_ids), True), (unit.row, list(unit.rejected_ids), False))
                for unit in prepared.validation]  # fmt: skip
        assert told == sorted(one for pair in both for one in pair) and len(told) == 8
