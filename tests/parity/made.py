"""What the parity and training tests share: a tiny model with the real tokenizer, and a run of the studio's trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback, set_seed

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare import prepare_data
from studio.models.device import device_info
from studio.models.plan import make_plan
from studio.models.shape import ModelShape
from studio.settings import ASSETS, Settings
from studio.train.loading import load_model
from studio.train.methods import METHODS
from studio.train.setup import Setup
from studio.train.worker import lengths_of


def make_tiny(model_path: Path, folder: Path) -> Path:
    """Write a two-layer random Llama with SmolLM2's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: a second one makes tiny products slower, and a shared machine slower still."""
    before, torch.set_num_threads = torch.set_num_threads, lambda count: None
    threads = torch.get_num_threads()
    before(1)
    try:
        yield
    finally:
        torch.set_num_threads = before
        before(threads)


def demo_rows(name: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a file of the demo."""
    lines = (ASSETS / "demo" / name).read_text(encoding="utf-8").splitlines()[:count]
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Made:
    """A trainer of the studio with what it was made of."""

    trainer: Any
    setup: Setup


def make_trainer(
    raw: dict[str, Any], folder: Path, output: Path, settings: Settings, callbacks: list[TrainerCallback] | None = None
) -> Made:
    """Build the trainer of a run as `worker.train` does, without a job around it."""
    config = build(RunConfig, raw)
    method = METHODS[config.method.name]
    set_seed(config.training.seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prepared = prepare_data(config.data, config.method, tokenizer, settings, seed=config.training.seed)
    shape = ModelShape.from_folder(folder)
    plan = make_plan(config, shape, lengths_of(prepared), device_info(settings), method.cost)
    example = min(prepared.train, key=lambda row: row.length) if prepared.kind == "answers" else None
    loaded = load_model(config, plan, folder, tokenizer, example)
    setup = Setup(
        config=config, plan=plan, model=loaded.model, base=folder, tokenizer=tokenizer, train=prepared.train,
        validation=prepared.validation, output=output, callbacks=callbacks or [], peft_config=loaded.peft_config,
        engine_loss=loaded.engine_loss,
    )  # fmt: skip
    return Made(method.build(setup), setup)


def logged(trainer: Any, name: str = "loss") -> list[float]:
    """A number of each step, as the trainer logged it."""
    return [entry[name] for entry in trainer.state.log_history if name in entry and "train_runtime" not in entry]


def trained_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The weights that change, by name."""
    return {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}
