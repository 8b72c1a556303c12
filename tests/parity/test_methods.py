"""Every method with every tuning equals plain TRL and PEFT on the same batches, at every step.

The plain side is what a person would write from the libraries' documentation: rows go to TRL's trainer, which applies
the chat template and tokenizes by itself. Nothing of the studio is used there. Two things are said to it:

- Its template ends the last message with <|im_end|>, without the line break behind. TRL counts whatever the template
  writes after the prompt as the answer; the studio's answer ends with the token that ends it, since nothing that comes
  later is ever written.
- Rated answers are mixed beforehand by the seed, as the studio does it once; TRL keeps the order of the file.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    set_seed,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.settings import Settings
from tests.parity.made import demo_rows, logged, make_trainer, trained_weights, write_rows

STEPS = 10
BATCH = 4
RATE = 1e-3
SEED = 42
RANK = 8
WANTED = 8  # tokens that the reward of grpo asks for: what a random model writes is near it, on both sides
# Both sides add up the same numbers, some of them in another order; fp32 keeps seven digits.
TOLERANCE = 1e-4
# TRL holds the adapter of a quantised model in bfloat16, the studio in float32: updates are rounded differently.
QUANTISED = 1e-2
# On the real model; full tuning at the rate of an adapter would leave what it knows in two steps, on either side.
REAL_RATE = {"full": 1e-5, "lora": 2e-4, "dora": 2e-4, "qlora": 2e-4}
TRAINERS: dict[str, tuple[Any, Any]] = {
    "sft": (SFTTrainer, SFTConfig),
    "pretrain": (SFTTrainer, SFTConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "orpo": (ORPOTrainer, ORPOConfig),
    "simpo": (CPOTrainer, partial(CPOConfig, loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=0.5)),
    "kto": (KTOTrainer, KTOConfig),
    "reward": (RewardTrainer, RewardConfig),
    "grpo": (GRPOTrainer, GRPOConfig),
}


@dataclass
class Outcome:
    """What a run left: the loss and the mean reward of each step, and the weights that changed."""

    losses: list[float]
    rewards: list[float]
    before: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, trainer: Any) -> Outcome:
        before = trained_weights(trainer)
        trainer.train()
        return cls(logged(trainer), logged(trainer, "reward"), before, trained_weights(trainer))


def rows_for(method: str, count: int) -> list[dict[str, Any]]:
    """As many rows as the run takes examples: each is used once."""
    if method == "pretrain":
        return demo_rows("text_train.jsonl", count)
    if method == "sft":
        return demo_rows("train.jsonl", count)
    if method == "grpo":
        return demo_rows("sums_train.jsonl", count // 2)  # two answers are written for each
    return demo_rows("pairs_train.jsonl", count // (2 if method == "kto" else 1))


def plain(method: str, tuning: str, folder: Path, output: Path, batch: int = BATCH, rate: float = RATE) -> Outcome:
    """The run as a script of TRL and PEFT."""
    set_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = "'<|im_end|>' + '\n'}}"
    assert end in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(
        end, "'<|im_end|>' + ('' if loop.last and not add_generation_prompt else '\n')}}"
    )
    loading: dict[str, Any] = {"dtype": torch.float32}
    if tuning == "qlora":
        loading["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
    if method == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **loading)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, **loading)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", use_dora=tuning == "dora",
        task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM",
    )  # fmt: skip
    common: dict[str, Any] = dict(
        output_dir=str(output), max_steps=STEPS, per_device_train_batch_size=batch, learning_rate=rate,
        lr_scheduler_type="cosine", warmup_steps=1, logging_steps=1, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, seed=SEED, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = rows_for(method, STEPS * batch)
    extra: dict[str, Any] = {}
    if method == "kto":
        common["train_sampling_strategy"] = "sequential"
        rows = [
            {"prompt": row["prompt"], "completion": row[answer], "label": answer == "chosen"}
            for row in rows
            for answer in ("chosen", "rejected")
        ]
        random.Random(SEED).shuffle(rows)
    if method == "sft":
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    if method == "grpo":
        common |= {"num_generations": 2, "max_completion_length": 8, "reward_weights": [1.0, 0.5]}

        def nearness(completions: list[Any], **_: Any) -> list[float]:
            lengths = [len(tokenizer(one[0]["content"], add_special_tokens=False)["input_ids"]) for one in completions]
            return [max(0.0, 1.0 - abs(length - WANTED) / WANTED) for length in lengths]

        def exact(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
            return [float(one[0]["content"].strip() == right) for one, right in zip(completions, answer, strict=True)]

        extra["reward_funcs"] = [nearness, exact]
    trainer_class, config_class = TRAINERS[method]
    trainer = trainer_class(
        model=model, args=config_class(**common), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        peft_config=None if tuning == "full" else lora, **extra,
    )  # fmt: skip
    if method == "reward" and tuning == "qlora":
        # TRL casts the head to bfloat16 with the adapter, and then fails on the float32 states that come to it.
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return Outcome.of(trainer)


def studio(
    method: str, tuning: str, folder: Path, output: Path, settings: Settings, batch: int = BATCH, rate: float = RATE,
    kernels: str = "off",
) -> Outcome:  # fmt: skip
    """The run as the studio makes it."""
    output.mkdir()
    rows = write_rows(output / "rows.jsonl", rows_for(method, STEPS * batch))
    options: dict[str, Any] = {"name": method}
    if method == "grpo":
        options |= {
            "rewards": ["length", "exact_match"], "reward_weights": [1.0, 0.5], "reward_length": WANTED,
            "num_generations": 2, "max_completion_length": 8,
        }  # fmt: skip
    raw = {
        "model": {"path": str(folder), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 512},
        "method": options,
        "tuning": {"name": tuning, "rank": RANK},
        "training": {
            "max_steps": STEPS, "batch_size": batch, "micro_batch_size": batch, "learning_rate": rate,
            "warmup": 1 / STEPS, "seed": SEED, "save_steps": 10_000, "kernels": kernels,
        },
    }  # fmt: skip
    made = make_trainer(raw, folder, output / "checkpoints", settings)
    return Outcome.of(made.trainer)


def largest(plain_: list[float], studio_: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(plain_, studio_, strict=True))


def same_course(method: str, tuning: str, expected: Outcome, found: Outcome, tolerance: float) -> None:
    """Each step's loss and reward are equal on both sides, and are those of a run that learns."""
    assert len(expected.losses) == len(found.losses) == STEPS
    print("\nparity:", method, tuning, largest(expected.losses, found.losses))
    assert largest(expected.losses, found.losses) <= tolerance
    if expected.rewards:
        # The loss of an on-policy step is 0 whatever happens; the rewards say whether the same was written.
        assert len(expected.rewards) == len(found.rewards) == STEPS
        assert found.rewards == pytest.approx(expected.rewards, abs=1e-6)
        assert len(set(found.rewards)) >= 3, "the answers differ"
    else:
        assert len(set(found.losses)) >= STEPS - 1, "only the first step has a rate of 0"


@pytest.mark.parametrize(
    ("method", "tuning"),
    [
        pytest.param(method, tuning, marks=[] if tuning == "lora" else [pytest.mark.long, pytest.mark.matrix])
        for tuning in ("full", "lora", "dora")
        for method in TRAINERS
    ],
)
def test_each_step_equals_plain_trl_and_peft(tiny, tmp_path, settings, method: str, tuning: str) -> None:
    expected = plain(method, tuning, tiny, tmp_path / "plain")
    found = studio(method, tuning, tiny, tmp_path / "studio", settings)
    same_course(method, tuning, expected, found, TOLERANCE)
    if method == "grpo":
        assert len(set(found.rewards)) > STEPS // 2, "what a random model writes differs each time"
    assert expected.weights.keys() == found.weights.keys()
    for name, weight in expected.weights.items():
        assert not torch.equal(weight, expected.before[name]), f"{name} moved"
        assert torch.equal(found.before[name], expected.before[name])
        assert float((weight - found.weights[name]).abs().max()) <= TOLERANCE * float(weight.abs().max()), name


@pytest.mark.parametrize(
    "method", [pytest.param(one, marks=[] if one == "sft" else pytest.mark.matrix) for one in TRAINERS]
)
def test_quantised_steps_equal_plain_trl_and_peft(tiny, tmp_path, settings, method: str) -> None:
    expected = plain(method, "qlora", tiny, tmp_path / "plain")
    found = studio(method, "qlora", tiny, tmp_path / "studio", settings)
    same_course(method, "qlora", expected, found, QUANTISED)


@pytest.mark.parametrize(
    ("method", "tuning"),
    [
        pytest.param(method, tuning, marks=[] if (method, tuning) == ("sft", "lora") else [pytest.mark.long])
        for tuning in ("full", "lora", "dora", "qlora")
        for method in TRAINERS
    ],
)
def test_fused_steps_equal_plain_trl_and_peft(tiny, tmp_path, settings, method: str, tuning: str) -> None:
    expected = plain(method, tuning, tiny, tmp_path / "plain")
    found = studio(method, tuning, tiny, tmp_path / "studio", settings, kernels="auto")
    same_course(method, f"fused {tuning}", expected, found, QUANTISED if tuning == "qlora" else TOLERANCE)


@pytest.mark.matrix
@pytest.mark.parametrize("tuning", REAL_RATE)
@pytest.mark.parametrize("method", TRAINERS)
def test_the_real_model_too(model_path, tmp_path, settings, method: str, tuning: str) -> None:
    rate = REAL_RATE[tuning]
    expected = plain(method, tuning, model_path, tmp_path / "plain", batch=2, rate=rate)
    found = studio(method, tuning, model_path, tmp_path / "studio", settings, batch=2, rate=rate)
    same_course(f"real {method}", tuning, expected, found, QUANTISED if tuning == "qlora" else TOLERANCE)
