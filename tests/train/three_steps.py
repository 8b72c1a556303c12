"""Three steps of training on the tiny model, and looks at what came of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
)

from studio.jobs.run.worker import JobContext
from studio.methods import METHODS
from studio.settings import Settings
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]
RANK = 4
SAME = 1e-4  # logits of the same numbers, multiplied in another order


def run(settings: Settings, tiny: Path, tmp_path: Path, tuning: dict[str, Any], **sections: Any) -> JobContext:
    """Three steps on a few rows; without validation, unless a section asks for it."""
    method = sections.get("method", {}).get("name")
    file = "pairs_train.jsonl" if METHODS[method or "sft"].rows in ("pairs", "rated") else None
    if method == "grpo":
        file = "sums_train.jsonl"
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows(file, 12) if file else ROWS)
    sections["data"] = {"validation": 0, "max_length": 512, **sections.get("data", {})}
    sections["training"] = {"max_steps": 3, "batch_size": 4, **sections.get("training", {})}
    context = job_for(settings, tiny, rows, tuning={"name": "lora", "rank": RANK, **tuning}, **sections)
    train(context)
    assert len(reported(context)) == sections["training"]["max_steps"]
    assert all(math.isfinite(loss) for loss in reported(context))
    return context


def adapter_of(context: JobContext) -> dict[str, torch.Tensor]:
    return load_file(context.job.model / "adapter_model.safetensors")


def adapter_config(context: JobContext) -> dict[str, Any]:
    return json.loads((context.job.model / "adapter_config.json").read_text())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """The model's answer to some tokens; (1, T, V)."""
    training = model.training
    found = model.eval()(torch.arange(20, 44)[None]).logits
    model.train(training)
    return found


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tuned(base: Path, *adapters: Path) -> Any:
    """A base with the adapters of runs; all but the last are merged into it."""
    model = plain(base)
    for folder in adapters[:-1]:
        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return PeftModel.from_pretrained(model, adapters[-1])


def layers_of(model: Any) -> dict[str, Any]:
    """The layers with an adapter, by name."""
    return {name: module for name, module in model.named_modules() if getattr(module, "lora_A", None)}


# What is reported in the first step of a run whose reference is where it began.
AT_START = {"dpo": ("loss", math.log(2)), "kto": ("loss", 0.5), "grpo": ("kl", 0.0), "rloo": ("kl", 0.0)}


def referring(method: str) -> dict[str, Any]:
    if method not in ("grpo", "rloo"):
        return {"name": method}
    return {
        "name": "grpo", "grpo_algorithm": method, "beta": 0.1, "rewards": ["length"], "reward_length": 6,
        "max_completion_length": 8, "num_generations": 2,
    }  # fmt: skip
