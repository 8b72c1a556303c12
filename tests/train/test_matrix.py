"""Every method with every tuning, through the worker: trains, changes what it should, saves what loads again.

The demo's presets are what is run, so each of them is, too. Every day the tiny model goes through a quarter of the
cells; `make test-matrix` takes both through all.
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from studio.config import RunConfig
from studio.config.load import build, load_yaml
from studio.data.files.datafiles import read_rows, resolve_path
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.methods import METHODS
from studio.settings import PRESETS, Settings
from studio.train.worker import train
from studio.tunings import TUNINGS
from tests.parity.made import reported, write_rows

STEPS = 3
ROWS = 12
CELLS = [(method, tuning) for method in METHODS for tuning in TUNINGS]
# Every method once, every tuning twice. The presets of tests/config run other cells every day.
TINY_EVERY_DAY = [
    cell for cell in CELLS if (list(METHODS).index(cell[0]) - list(TUNINGS).index(cell[1])) % len(TUNINGS) == 0
]  # fmt: skip
REAL_EVERY_DAY = [("dpo", "dora"), ("reward", "qlora")]


def run_cell(
    settings: Settings, model: Path, tmp_path: Path, method: str, tuning: str, rank: int, dtype: str = "auto",
    validation: float = 0,
) -> JobContext:  # fmt: skip
    """Train the demo of a method for three steps on a few of its rows."""
    raw: dict[str, Any] = load_yaml(PRESETS / "demo" / f"{method}.yaml")
    demo = resolve_path(raw["data"]["train"][0]["path"], settings)
    rows = write_rows(tmp_path / "rows.jsonl", [row for _, row in islice(read_rows(demo), ROWS)])
    raw["model"] = {"path": str(model), "dtype": dtype}
    raw["data"] |= {"train": [{"path": str(rows)}], "validation": validation, "max_length": 512}
    raw["tuning"] |= {"name": tuning, "rank": rank}
    raw["training"] |= {"max_steps": STEPS, "batch_size": 4, **({"eval_steps": 1} if validation else {})}
    if METHODS[method].online:
        # Eight tokens score much the same by the demo's rewards; their letters never do.
        letters = tmp_path / "letters.py"
        letters.write_text("def score(completions, **rest):\n    return [len(text) / 10 for text in completions]\n")
        raw["method"] |= {
            "rewards": [*raw["method"]["rewards"], "python"], "reward_weights": None, "max_completion_length": 8,
            "reward_python": f"{letters}:score", "trust_reward_code": True,
        }  # fmt: skip
    if method == "grpo":
        raw["method"]["num_generations"] = 2
    if method == "ppo":
        raw["method"]["ppo_epochs"] = 1  # so that each step has answers of its own
    job = create_job(settings.jobs, "train", method, build(RunConfig, raw).model_dump(mode="json"))
    context = JobContext(job, settings)
    train(context)
    return context


def load_again(method: str, tuning: str, base: Path, saved: Path) -> Any:
    """The trained model as a person would load it."""
    if METHODS[method].result == "scorer":
        if tuning == "full":
            return AutoModelForSequenceClassification.from_pretrained(saved, dtype=torch.float32)
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    else:
        if tuning == "full":
            return AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(plain, saved)


@torch.no_grad()
def check_cell(context: JobContext, base: Path, method: str, tuning: str) -> None:
    """What is true of every cell."""
    for name in ("loss", "reward") if METHODS[method].online else ("loss",):
        numbers = reported(context, name)
        assert len(numbers) == STEPS, f"{name} of each step"
        assert all(math.isfinite(number) for number in numbers), (name, numbers)
    saved = context.job.model
    assert not list(saved.glob("*.bin")), "nothing that could run code"
    assert (saved / "tokenizer.json").exists()
    assert (saved / "run.yaml").exists()
    if TUNINGS[tuning].adapter:
        adapter = load_file(saved / "adapter_model.safetensors")
        starts_at_zero = [tensor for name, tensor in adapter.items() if "lora_B" in name]
        assert starts_at_zero
        assert all(tensor.abs().max() > 0 for tensor in starts_at_zero), "every B left its zero"
        assert ("lora_magnitude_vector" in " ".join(adapter)) == (tuning == "dora")
        assert not list(saved.glob("model*.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(saved)
    ids = torch.tensor([tokenizer("How far is it from Alder to Holt?")["input_ids"]])
    model = load_again(method, tuning, base, saved).eval()
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if METHODS[method].result == "scorer":
        first, second = (load_again(method, tuning, base, saved).eval()(ids).logits for _ in range(2))
        assert first.shape == (1, 1)
        assert torch.equal(first, second), "the head is saved with the model, not drawn anew"
        inner = model.get_base_model() if TUNINGS[tuning].adapter else model
        changed, before = inner.model(ids).last_hidden_state, plain.model(ids).last_hidden_state
    else:
        changed, before = model(ids).logits, plain(ids).logits
    assert torch.isfinite(changed).all()
    assert (changed - before).abs().max() > 1e-6


def test_the_demo_has_a_preset_of_each_method() -> None:
    assert sorted(path.stem for path in (PRESETS / "demo").rglob("*.yaml")) == sorted(METHODS)


@pytest.mark.parametrize(
    ("method", "tuning"),
    [*TINY_EVERY_DAY, *(pytest.param(*cell, marks=pytest.mark.matrix) for cell in CELLS if cell not in TINY_EVERY_DAY)],
)
def test_every_cell_on_the_tiny_model(settings, tiny, tmp_path, method: str, tuning: str) -> None:
    context = run_cell(settings, tiny, tmp_path, method, tuning, rank=8, dtype="float32")
    check_cell(context, tiny, method, tuning)


VALIDATED_EVERY_DAY = [("sft", "lora"), ("dpo", "lora"), ("kto", "lora"), ("grpo", "lora")]


@pytest.mark.parametrize(
    ("method", "tuning"),
    [
        pytest.param(method, tuning, marks=[] if (method, tuning) in VALIDATED_EVERY_DAY else pytest.mark.long)
        for method, tuning in [*((method, "lora") for method in METHODS), ("dpo", "full")]
    ],
)
def test_every_method_validates(settings, tiny, tmp_path, method: str, tuning: str) -> None:
    context = run_cell(settings, tiny, tmp_path, method, tuning, rank=8, dtype="float32", validation=0.25)
    first = METHODS[method].metrics[0].name
    for name in dict.fromkeys([f"eval_{first.removeprefix('eval_')}", *([] if method == "ppo" else ["eval_loss"])]):
        numbers = reported(context, name)
        assert len(numbers) == STEPS + 1, f"{name} before the first step and after each"
        assert all(math.isfinite(number) for number in numbers)
    if not METHODS[method].online:
        assert reported(context, "eval_loss")[-1] != reported(context, "eval_loss")[0]


@pytest.mark.long
@pytest.mark.parametrize(("method", "tuning"), REAL_EVERY_DAY)
def test_some_cells_on_the_real_model(settings, model_path, tmp_path, method: str, tuning: str) -> None:
    context = run_cell(settings, model_path, tmp_path, method, tuning, rank=16)
    check_cell(context, model_path, method, tuning)


@pytest.mark.matrix
@pytest.mark.parametrize(("method", "tuning"), [cell for cell in CELLS if cell not in REAL_EVERY_DAY])
def test_every_other_cell_on_the_real_model(settings, model_path, tmp_path, method: str, tuning: str) -> None:
    context = run_cell(settings, model_path, tmp_path, method, tuning, rank=16)
    check_cell(context, model_path, method, tuning)
