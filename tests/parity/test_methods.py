"""Every other method with every tuning equals plain TRL and PEFT on the same batches, at every step.

The plain side is what a person would write from the libraries' documentation: rows go to TRL's trainer, which applies
the chat template and tokenizes by itself. Nothing of the studio is used there. Two things are said to it:

- The template ends the last message with <|im_end|> and not with the line break behind it. TRL counts whatever the
  template writes after the prompt as the answer; the studio's answer ends with the token that ends it, since nothing
  that comes later is ever written.
- KTO rows are mixed beforehand by the seed, as the studio does; TRL keeps the order of the file.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    set_seed,
)

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

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
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tests.parity.made import demo_rows, logged, make_trainer, trained_weights, write_rows

STEPS = 10
BATCH = 4
RATE = 1e-3
# Both sides add up the same numbers, some in another order; fp32 keeps seven digits.
TOLERANCE = 1e-4
# TRL holds a quantised model's adapter in bfloat16 and the studio in float32, so updates are rounded differently.
QUANTISED = 1e-2
EXPLICIT_SYSTEM = {"role": "system", "content": "Be brief."}


@dataclass
class Outcome:
    """What a run left: a number of each step, and the weights that changed."""

    losses: list[float]
    rewards: list[float]
    weights: dict[str, torch.Tensor]


def rows_for(method: str) -> list[dict[str, Any]]:
    """Rows for exactly the steps of the test."""
    if method == "pretrain":
        return demo_rows("text_train.jsonl", STEPS * BATCH)
    if method == "sft":
        return demo_rows("train.jsonl", STEPS * BATCH)
    if method == "grpo":
        return [{**row, "answer": row["answer"]} for row in demo_rows("sums_train.jsonl", STEPS * BATCH // 2)]
    return demo_rows("pairs_train.jsonl", STEPS * BATCH // (2 if method == "kto" else 1))
