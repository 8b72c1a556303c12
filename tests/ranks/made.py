"""Runs on several ranks, and what is compared of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from studio.jobs import JobFolder, read_events, submit, wait
from studio.settings import Settings
from tests.parity.made import demo_rows, write_rows

SECONDS = 300
# In float32 the order in which numbers are added up is all that differs.
TOLERANCE = 1e-5
SOURCES = {
    "sft": "train.jsonl", "pretrain": "text_train.jsonl", "grpo": "sums_train.jsonl", "ppo": "sums_train.jsonl",
}  # fmt: skip
# What a method's section says, and a tuning's: some are known by another name.
KINDS: dict[str, dict[str, Any]] = {
    "ppo": {"name": "ppo", "ppo_epochs": 2},
    "rloo": {"name": "grpo", "grpo_algorithm": "rloo"}, "cpo": {"name": "orpo", "orpo_loss": "cpo"},
}  # fmt: skip
TUNINGS: dict[str, dict[str, Any]] = {"rslora": {"name": "lora", "rslora": True}}
# What a random model writes is near that length, on both sides.
WRITING = {
    "rewards": ["length", "exact_match"], "reward_weights": [1.0, 0.5], "reward_length": 8, "num_generations": 2,
    "max_completion_length": 12, "beta": 0.05,
}  # fmt: skip


def config(tiny: Path, folder: Path, method: str = "sft", tuning: str = "lora", **training: Any) -> dict[str, Any]:
    """A short run: 16 rows to train on and 4 to validate, so that the last update of an epoch has fewer than others."""
    kind = KINDS.get(method, {"name": method})
    source = SOURCES.get(kind["name"], "pairs_train.jsonl")
    rows = write_rows(folder / f"{method}.jsonl", demo_rows(source, 20))
    return {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0.2},
        "method": {**kind, **(WRITING if kind["name"] in ("grpo", "ppo") else {})},
        "tuning": {**TUNINGS.get(tuning, {"name": tuning}), **({} if tuning == "full" else {"rank": 4})},
        "training": {"epochs": 2, "batch_size": 6, "learning_rate": 1e-3, "eval_steps": 2, **training},
    }


def ran(settings: Settings, name: str, values: dict[str, Any], **training: Any) -> JobFolder:
    """Train to the end."""
    values = {**values, "training": {**values["training"], **training}}
    job = submit(settings, "train", name, values)
    assert wait(job, seconds=SECONDS).status == "completed", (job.state().reason, job.log_path.read_text())
    return job


def once(settings: Settings, tiny: Path, name: str, method: str, tuning: str, **training: Any) -> JobFolder:
    """A run that is trained once in a session, however many tests compare with it or go on from it.

    Args:
        settings: of the session, where it and its rows stay.
        tiny: folder of the model.
        name: says what is special about it.
        method, tuning: their words.
        training: as for `config`.
    """
    name = f"{method}-{tuning}-{name}"
    known = [job for job in map(JobFolder, settings.jobs.glob(f"*-{name}")) if job.state().status == "completed"]
    if known:
        return known[0]
    rows = settings.home / "rows"
    rows.mkdir(exist_ok=True)
    return ran(settings, name, config(tiny, rows, method, tuning, **training))


def events(job: JobFolder) -> list[dict[str, Any]]:
    return read_events(job.events_path, 0, 10**8)[0]


def curve(job: JobFolder, name: str) -> dict[int, float]:
    """The values of a metric by step; those of a step that was repeated are the later ones."""
    return {
        event["step"]: event["values"][name]
        for event in events(job)
        if event["kind"] == "metric" and name in event["values"]
    }


def weights(job: JobFolder) -> dict[str, Any]:
    """Every tensor of the run's model or adapter."""
    return {key: one for file in sorted(job.model.glob("*.safetensors")) for key, one in load_file(file).items()}


def apart(ours: JobFolder, theirs: JobFolder) -> float:
    """The largest difference of two runs' weights."""
    one, other = weights(ours), weights(theirs)
    assert one.keys() == other.keys() and one
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def apart_as_a_whole(ours: JobFolder, theirs: JobFolder) -> float:
    """The distance of two runs' weights, as a part of their length."""
    one, other = (torch.cat([tensor.flatten() for _, tensor in sorted(weights(run).items())]) for run in (ours, theirs))
    return float((one - other).norm() / other.norm())
