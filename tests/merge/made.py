"""What tests of merges are made with: sizes of a tiny model, runs put together by hand, tensors of a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings, read_settings

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 512,
    "eos_token_id": 2, "bos_token_id": 1,
}  # fmt: skip


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    return {name: one for file in sorted(folder.glob("*.safetensors")) for name, one in load_file(file).items()}


def put_run(settings: Settings, name: str, model: Path, base: Path, **config: Any) -> JobFolder:
    """Make a completed training job whose result is the given folder."""
    data = {"train": [{"path": "demo/train.jsonl"}], "validation": "demo/validation.jsonl"}
    run = create_job(settings.jobs, "train", name, {"data": data} | config)
    shutil.copytree(model, run.model)
    write_json(run.environment_path, {"base_model": {"name": "the base", "path": str(base), "source": "local"}})
    write_state(run.state_path, JobState(status="completed"))
    return run


def home_at(folder: Path) -> Settings:
    """Settings of a home that a module's tests share."""
    return replace(read_settings(), home=folder, roots=())


VARIED = "models.1.parameters.weight"
MIX = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"


def put_point(settings: Settings, value: float, correct: int | None, models: bool = False) -> JobFolder:
    """Make a merge of a sweep as its job leaves it.

    Args:
        settings: of the home.
        value: of the varied number.
        correct: rows that the child answers, of four; None while it waits.
        models: whether its parents answered, too.
    """
    config = {"recipe": MIX, "varied": {VARIED: value}, "evaluate": "rows.jsonl"}
    job = create_job(settings.jobs, "merge", f"mix-{value:g}", config, group="mix-sweep-20261129-040000")
    if correct is None:
        return job
    scores = [{"name": "a", "score": 0.5, "correct": 2, "seconds": 1.0}] if models else []
    scores.append({"name": job.name, "score": correct / 4, "correct": correct, "seconds": 2.0})
    found = {"data": "rows.jsonl", "measure": "exact_match", "of": "rows", "total": 4, "scores": scores}
    rows = [{"row": row, "prompt": f"{row}?", "expected": "Yes", "answers": [], "right": []} for row in range(1, 5)]
    job.report.mkdir()
    parents = [{"word": word, "kind": "run", "id": word, "weights": "", "adapter": None} for word in ("a", "b")]
    report = {"name": job.name, "title": "Linear", "method": "linear", "note": "", "recipe": MIX, "parents": parents,
              "evaluation": found | {"rows": rows}}  # fmt: skip
    write_json(job.report / "merge.json", report)
    write_state(job.state_path, JobState(status="completed"))
    return job


def put_child(settings: Settings, name: str, model: Path, **config: Any) -> JobFolder:
    """Make a completed merge whose child is the given folder."""
    job = create_job(settings.jobs, "merge", name, {"recipe": MIX, "parents": {"a": "a", "b": "b"}} | config)
    shutil.copytree(model, job.model)
    write_json(job.environment_path, {"base_model": {"name": "the base", "path": str(model), "source": "local"}})
    write_state(job.state_path, JobState(status="completed"))
    return job
