"""Trainings written by hand, with events, files and an end, for tests of what comes after a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import JobFolder
from studio.jobs.store.checkpoints import seal
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state

MODEL_BYTES, CHECKPOINT_BYTES = 1000, 3000


def trained(
    jobs: Path,
    name: str,
    losses: list[float] | None = None,
    *,
    status: Any = "completed",
    values: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> JobFolder:
    """A training whose validation losses are `losses`, one every ten steps, with a model and a checkpoint."""
    job = create_job(jobs, "train", name, build(RunConfig, sections).model_dump(mode="json"))
    writer = EventWriter(job.events_path)
    measured = losses or []
    for step in range(1, 10 * len(measured) + 1):
        found = {"loss": 2.0 / step, "learning_rate": 1e-3, "tokens_per_second": 500.0 + step, **(values or {})}
        if step % 10 == 0:
            found["eval_loss"] = measured[step // 10 - 1]
        writer.write(
            "metric", step=step, total_steps=10 * len(measured), epoch=1.0, tokens=100 * step, elapsed=2.0 * step,
            values=found, memory_gb=2.0,
        )  # fmt: skip
    writer.close()
    job.model.mkdir()
    write_json(job.model / "adapter_config.json", {})
    (job.model / "adapter_model.safetensors").write_bytes(b"m" * MODEL_BYTES)
    checkpoint = job.checkpoints / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"c" * CHECKPOINT_BYTES)
    seal(checkpoint, 10, {})
    now = time.time()
    write_state(job.state_path, JobState(status=status, created=now - 60, started=now - 50, finished=now))
    return job
