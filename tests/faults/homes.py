"""Homes with many runs, and runs with long logs, written without any work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TextIO

from studio.config import RunConfig
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, own_identity, write_state

DAY = 86_400


def many_runs(jobs: Path, count: int) -> list[str]:
    """Finished runs, copies of one; returns their ids, the newest first."""
    # Not a whole config: reading it takes most of the time, and every run is read once.
    first = create_job(jobs, "train", "first", {"method": {"name": "sft"}, "tuning": {"name": "lora"}})
    writer = EventWriter(first.events_path)
    for step in range(1, 4):
        values = {"loss": 1.0 / step, "eval_loss": 1.5 / step}
        writer.write("metric", step=step, total_steps=3, tokens=9 * step, elapsed=float(step), values=values)
    writer.write("done", status="completed", reason="", fix="")
    write_state(first.state_path, JobState(status="completed", created=1e9, started=1e9, finished=1e9 + 60))
    files = {name: (first.path / name).read_bytes() for name in ("job.yaml", "events.jsonl", "state.json")}
    ids = []
    for number in range(count):
        folder = jobs / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(1e9 + 600 * number))}-run-{number}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content.replace(b"first", f"run-{number}".encode()))
        ids.append(folder.name)
    for path in first.path.iterdir():
        path.unlink()
    first.path.rmdir()
    settle(jobs)
    return ids[::-1]


def settle(jobs: Path) -> None:
    """Make the folders look as if nobody had written into them for a day."""
    before = time.time() - DAY
    for folder in [*jobs.iterdir(), jobs]:
        os.utime(folder, (before, before))


def long_run(jobs: Path, steps: int, log_bytes: int, status: str = "completed") -> JobFolder:
    """A run of many steps, each with its metrics and its progress, whose log is as long as you like."""
    job = create_job(jobs, "train", f"long-{steps}", RunConfig().model_dump(mode="json"))
    pid, start = own_identity()
    state = JobState(status="running", pid=pid, process_start=start, started=time.time() - 2 * steps)
    with job.events_path.open("w") as file:
        for step in range(1, steps + 1):
            write_step(file, step, steps)
        if status != "running":
            file.write(json.dumps({"seq": 2 * steps + 1, "time": 1e9, "kind": "done", "status": status}) + "\n")
    line = b"12:00:00  training  of many steps   loss 1.2345   lr 1.00e-04   600 tokens/s\n"
    block = line * (1 + 4_000_000 // len(line))
    with job.log_path.open("wb") as log:
        while log.tell() < log_bytes:
            log.write(block[: min(len(block), log_bytes - log.tell() + len(line))])
        log.write(b"\nthe last line\n")
    write_state(job.state_path, state.with_(status=status, finished=None if status == "running" else time.time()))
    return job


def write_step(file: TextIO, step: int, steps: int) -> None:
    values = {"loss": 2 / step**0.5, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_second": 600.0}
    if step % 50 == 0:
        values["eval_loss"] = 2.1 / step**0.5
    metric = {
        "seq": 2 * step - 1, "time": 1e9 + step, "kind": "metric", "step": step, "values": values,
        "total_steps": steps, "epoch": 3 * step / steps, "epochs": 3, "tokens": 600 * step, "elapsed": float(step),
        "supervised_tokens": 60 * step, "training_seconds": float(step), "eta": float(steps - step), "memory_gb": 1.5,
    }  # fmt: skip
    phase = {
        "seq": 2 * step, "time": 1e9 + step, "kind": "phase", "phase": "training", "state": "progress", "done": step,
        "total": steps, "unit": "steps", "memory_gb": 1.5,
    }  # fmt: skip
    file.write(f"{json.dumps(metric)}\n{json.dumps(phase)}\n")
