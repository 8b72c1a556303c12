"""Run by DeepSpeed's environment (`make test-deepspeed`): `check FILE …` and `train FILE …` print one JSON line.

`check` gives each config to DeepSpeed's own reader. `train` computes four updates of two micro-batches with each on
two processes of a CPU, as accelerate drives DeepSpeed, and the same updates in this process by torch alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

RANKS, UPDATES, ROWS, RATE = 2, 4, 8, 1e-2


def check(files: list[str]) -> list[dict[str, Any]]:
    from deepspeed.runtime.config import DeepSpeedConfig

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    found = []
    for file in files:
        values = json.loads(Path(file).read_text())
        values["train_batch_size"] = values["train_micro_batch_size_per_gpu"]  # of one process, which this is
        read = DeepSpeedConfig(values)
        found.append({
            "stage": int(read.zero_config.stage), "clipping": read.gradient_clipping,
            "bf16": read.bfloat16_config.enabled, "rows": read.train_micro_batch_size_per_gpu,
            "bucket": read.zero_config.reduce_bucket_size,
        })  # fmt: skip
    return found


def _made() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    return model, torch.randn(UPDATES, ROWS, 8), torch.randn(UPDATES, ROWS, 1)


def alone(clipping: float) -> list[float]:
    model, inputs, wanted = _made()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=RATE), []
    for x, y in zip(inputs, wanted, strict=True):
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clipping)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def _rank(rank: int, file: str, store: str, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "DS_ACCELERATOR": "cpu"}
    os.environ |= {"LOCAL_WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    import deepspeed

    model, inputs, wanted = _made()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=json.loads(Path(file).read_text()))
    losses = []
    for x, y in zip(inputs, wanted, strict=True):
        whole = 0.0
        for part in (slice(rank, 4, RANKS), slice(4 + rank, ROWS, RANKS)):  # two micro-batches of two rows
            loss = torch.nn.functional.mse_loss(engine(x[part]), y[part]) / 2
            last = part.start >= 4
            engine.set_gradient_accumulation_boundary(is_boundary=last)
            engine.backward(loss)
            whole += float(loss.detach())
        engine.step()
        shared = torch.tensor([whole])
        dist.all_reduce(shared)
        losses.append(float(shared) / RANKS)
    if rank == 0:
        Path(out).write_text(json.dumps(losses))
    dist.destroy_process_group()


def train(files: list[str]) -> list[dict[str, Any]]:
    found = []
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/losses.json"
            torch.multiprocessing.spawn(_rank, (file, f"{folder}/store", out), nprocs=RANKS)
            clipping = json.loads(Path(file).read_text())["gradient_clipping"]
            found.append({"divided": json.loads(Path(out).read_text()), "alone": alone(clipping)})
    return found


if __name__ == "__main__":
    print("\n" + json.dumps({"check": check, "train": train}[sys.argv[1]](sys.argv[2:])))
