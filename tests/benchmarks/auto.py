"""Is `auto` as fast as the best micro-batch set by hand, and how much memory does it take?

    python -m tests.benchmarks.auto MODEL [UPDATES]      MODEL: a folder with SmolLM2-135M-Instruct; 3 updates
Rows like Alpaca's (212 tokens on average, one in a hundred above 700), 40 of them an update, LoRA r16, everything else
left as it is. Each update is computed once with every size of micro-batch, the order of the sizes turning from update
to update, so that what else runs on the machine hits all alike. Tokens are those of the rows, without padding.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.jobs import JobFolder
from studio.models.plan.batches import Batching
from studio.settings import read_settings
from tests.benchmarks.preparation import alpaca_rows, own_home
from tests.conftest import run_studio

BATCH = 40
BY_HAND = (2, 4, 5, 8, 10)
UPDATES = 3
MEAN, SPREAD, LONGEST = 3.75, 0.75, 28  # sentences of an answer: a log-normal with a long tail
RUN_STEPS = 4


@dataclass(frozen=True)
class Speeds:
    """Tokens a second by micro-batch; `auto` is the plan's.

    Attributes:
        chosen: what the plan chose, in words.
        by_hand: rows → tokens a second, rows of like length together.
        unsorted: the same rows in the order of the data, four at a time, as other trainers have them.
        mean: tokens of a row.
    """

    auto: float
    chosen: str
    by_hand: dict[int, float]
    unsorted: float
    mean: float


def like_alpaca(count: int) -> Iterator[dict[str, str]]:
    """Rows of sentences of Python's reference whose answers have the spread of Alpaca's, the same each time."""
    rng = random.Random(7)
    sentences = [part for row in alpaca_rows(2000) for part in (row["instruction"], row["input"]) if part]
    for row in alpaca_rows(count):
        many = min(LONGEST, max(1, round(MEAN * math.exp(rng.gauss(0, SPREAD)))))
        yield row | {"output": " ".join(rng.choices(sentences, k=many))}


def config_of(rows: Path, **training: Any) -> dict[str, Any]:
    """The run, everything on auto."""
    return {
        "model": {"path": "smollm2-135m-instruct"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 1024, "truncation": "cut"},
        "tuning": {"name": "lora", "rank": 16},
        "training": {"batch_size": BATCH, **training},
    }


def write(folder: Path, count: int) -> Path:
    """Write that many rows."""
    path = folder / "alpaca.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in like_alpaca(count)))
    return path


def speeds(model: Path, updates: int = UPDATES) -> Speeds:
    """Compute the same updates with every size of micro-batch."""
    import torch

    from studio.data.prepare.batch import row_length
    from studio.train.trainers.grouped import Collator, Parts
    from tests.parity.made import make_trainer

    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):
        raw = config_of(write(Path(folder), BATCH * (updates + 1)), max_steps=updates)
        raw["model"]["path"] = str(model)
        made = make_trainer(raw, model, Path(folder) / "out", read_settings())
        trainer, plan = made.trainer, made.setup.plan
        trainer.create_optimizer()
        rows = list(trainer.train_dataset)

        def unsorted(batch: list[dict[str, Any]]) -> Parts:
            return Parts([trainer.data_collator(batch[at : at + 4]) for at in range(0, len(batch), 4)], len(batch))

        ways: dict[str, Any] = {"auto": Collator(trainer.data_collator, plan.batching, 1), "unsorted": unsorted}
        ways |= {str(size): Collator(trainer.data_collator, Batching(size), 1) for size in BY_HAND}
        taken = dict.fromkeys(ways, 0.0)
        names = list(ways)
        for update in range(updates + 1):
            batch = rows[BATCH * update : BATCH * (update + 1)]
            turn = update % len(names)
            # The first is not counted: threads and memory are got ready in it.
            for name in names[:1] if update == 0 else [*names[turn:], *names[:turn]]:
                parts = ways[name](batch)
                items = trainer._get_num_items_in_batch([parts], torch.device("cpu"))
                started = time.perf_counter()
                trainer.training_step(trainer.model, parts, items)
                trainer.model.zero_grad()
                taken[name] += (time.perf_counter() - started) if update else 0.0
        tokens = sum(row_length(row) for row in rows[BATCH : BATCH * (updates + 1)])
        speed = {name: tokens / seconds for name, seconds in taken.items()}
        chosen = plan.choices["training.micro_batch_size"]
        mean = tokens / (BATCH * updates)
        return Speeds(
            speed["auto"], f"{chosen.value}: {chosen.reason}", {size: speed[str(size)] for size in BY_HAND},
            speed["unsorted"], mean,
        )  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Peak of a whole run on auto, planned and measured, in bytes."""

    planned: int
    measured: int


def memory(home: Path, steps: int = RUN_STEPS) -> Memory:
    """Train some steps from the command line."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "auto.json"
    path.with_suffix(".yaml").write_text(json.dumps(config_of(write(home, 10 * BATCH), max_steps=steps)))
    done = run_studio("train", str(path.with_suffix(".yaml")), "--name", "auto", "--json", home=home, seconds=3600)
    assert done.code == 0, done.stderr
    environment = JobFolder(Path(done.json["path"])).environment()
    return Memory(environment["plan"]["total_bytes"], environment["peak_memory_bytes"])


def main(model: Path, updates: int) -> int:
    """Measure and print; returns 1 where a goal is missed."""
    found = speeds(model, updates)
    best = max(found.by_hand.values())
    print(f"{found.mean:.0f} tokens a row\nauto {found.auto:.0f} tokens/s ({found.chosen})")
    for size, speed in found.by_hand.items():
        print(f"{size} rows at a time {speed:.0f} tokens/s")
    print(f"4 rows in the order of the data {found.unsorted:.0f} tokens/s")
    with tempfile.TemporaryDirectory() as folder:
        peak = memory(Path(folder) / "home")
    print(f"planned {peak.planned / 1e9:.2f} GB, measured {peak.measured / 1e9:.2f} GB")
    missed = found.auto < 0.95 * best or peak.measured > 6e9 or abs(peak.planned / peak.measured - 1) > 0.1
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else UPDATES))
