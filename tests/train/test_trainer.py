"""Mechanics of a training run on a tiny random model with the real tokenizer: what moves, what counts, what stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import Summaries, read_events, request_stop
from studio.jobs.folder import create_job
from studio.jobs.worker import JobContext
from studio.settings import Settings
from studio.train.tuning import PREPARE
from studio.train.worker import train

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]


@pytest.fixture(scope="module")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Llama with SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(settings: Settings, tiny: Path, tmp_path: Path, **sections: dict[str, Any]) -> JobContext:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    raw: dict[str, Any] = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(data)}], "validation": 0.25, "max_length": 64},
        "training": {"epochs": 2, "batch_size": 3, "learning_rate": 1e-3},
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    job = create_job(settings.jobs, "train", "tiny", build(RunConfig, raw).model_dump(mode="json"))
    return JobContext(job, settings)


def losses(context: JobContext) -> list[float]:
    events, _ = read_events(context.job.events_path)
    return [event["values"]["loss"] for event in events if event["kind"] == "metric" and "loss" in event["values"]]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_should_move_moves_and_nothing_else(settings, tiny, tmp_path, tuning) -> None:
    context = run(settings, tiny, tmp_path, tuning={"name": tuning, "rank": 4})
    train(context)
    before = LlamaForCausalLM.from_pretrained(tiny, dtype=torch.float32).state_dict()
    assert len(losses(context)) == 6
    if tuning == "full":
        after = LlamaForCausalLM.from_pretrained(context.job.model, dtype=torch.float32).state_dict()
        assert after.keys() == before.keys()
        assert all(not torch.equal(after[name], before[name]) for name in before)
    else:
        from safetensors.torch import load_file

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
    assert losses(pieces) == pytest.approx(losses(whole), rel=2e-5)


def test_the_same_seed_gives_the_same_run(settings, tiny, tmp_path) -> None:
    first, second, other = (run(settings, tiny, tmp_path, training={"seed": seed}) for seed in (1, 1, 2))
    for context in (first, second, other):
        train(context)
    assert losses(first) == losses(second)
    assert losses(first) != losses(other)


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
    assert losses(context) == ["nan"]


def test_a_layer_that_does_not_exist_names_those_that_do(tiny) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny)
    tuning = build(RunConfig, {"tuning": {"target_modules": ["q_proj", "wq"]}}).tuning
    with pytest.raises(InputError, match=r"tuning\.target_modules: .*'wq'.*q_proj"):
        PREPARE["lora"](model, tuning)
