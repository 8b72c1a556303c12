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
from studio.data.prepare.pipeline import prepare_data
from studio.jobs import read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.models.device.machine import device_info
from studio.models.inspect.shape import ModelShape
from studio.models.plan.making import make_plan
from studio.settings import ASSETS, Settings
from studio.train import trainers
from studio.train.engine import fused
from studio.train.engine.offload import offload
from studio.train.load.model import load_model
from studio.train.setup import Setup
from studio.train.worker import lengths_of

VOCABULARY = 4096


def make_tiny(model_path: Path, folder: Path) -> Path:
    """Write a two-layer random Llama with SmolLM2's tokenizer, cut to its first ids.

    Its 49,152 logits a token would be nearly all that the tests compute. Template, special tokens and splitting are
    the real ones; longer words are made of more pieces.
    """
    AutoTokenizer.from_pretrained(model_path).save_pretrained(folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    bpe = tokenizer["model"]
    # The ids follow the order of the merges, so what is left is a tokenizer in itself.
    bpe["vocab"] = {token: id for token, id in bpe["vocab"].items() if id < VOCABULARY}
    bpe["merges"] = [merge for merge in bpe["merges"] if "".join(merge) in bpe["vocab"]]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert len(AutoTokenizer.from_pretrained(folder)) == VOCABULARY
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
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


def job_for(settings: Settings, folder: Path, rows: Path, **sections: dict[str, Any]) -> JobContext:
    """A training job on these rows, three at a time; `sections` change its config."""
    raw: dict[str, Any] = {
        "model": {"path": str(folder), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.25, "max_length": 64},
        "training": {"epochs": 2, "batch_size": 3, "learning_rate": 1e-3},
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    job = create_job(settings.jobs, "train", "tiny", build(RunConfig, raw).model_dump(mode="json"))
    return JobContext(job, settings)


def reported(context: JobContext, name: str = "loss") -> list[Any]:
    """A number of each step, as the job's events tell it."""
    events, _ = read_events(context.job.events_path)
    return [event["values"][name] for event in events if event["kind"] == "metric" and name in event["values"]]


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

    set_seed(config.training.seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prepared = prepare_data(config.data, config.method, tokenizer, settings, seed=config.training.seed)
    shape = ModelShape.from_folder(folder)
    plan = make_plan(config, shape, lengths_of(prepared, config), device_info(settings))
    example = min(prepared.train, key=lambda row: row.length) if prepared.kind == "answers" else None
    kernels, reason = fused.kernels(config, plan)
    loaded = load_model(config, plan, folder, tokenizer, example, kernels)
    setup = Setup(
        config=config, plan=plan, model=loaded.model, base=folder, tokenizer=tokenizer, train=prepared.train,
        validation=prepared.validation, output=output, callbacks=callbacks or [], peft_config=loaded.peft_config,
        engine_loss=loaded.engine_loss,
    )  # fmt: skip
    trainer = trainers.build(setup)
    offload(trainer.model, config, plan)
    if fused.wanted(config, plan):
        fused.fuse(trainer, config, plan, kernels, reason)
    return Made(trainer, setup)


def logged(trainer: Any, name: str = "loss") -> list[float]:
    """A number of each step, as the trainer logged it."""
    return [entry[name] for entry in trainer.state.log_history if name in entry and "train_runtime" not in entry]


def trained_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The weights that change, by name."""
    return {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}
