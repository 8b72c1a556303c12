"""Training steps with the engine's layers beside the same steps without them, in one process, turn about.

    python -m tests.benchmarks.engine [PAIRS] [TUNING]      5 pairs, lora; `make bench-quick` is that
Rows like Alpaca's, 16 of them an update, everything else on auto. Prints each pair's tokens a second (padding not
counted), the medians, their ratio and its spread, and the losses; exits with 1 below `GOAL`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from studio.settings import read_settings
from tests.benchmarks.auto import config_of, write
from tests.benchmarks.preparation import own_home
from tests.support.prepared import copy_model

PAIRS = 5
BATCH = 16
GOAL = 1.3


@dataclass
class Side:
    """One of both: its trainer, and tokens a second and the loss of each update."""

    trainer: Any
    batching: Any
    speeds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def update(self, batch: list[dict[str, Any]]) -> None:
        """Compute the gradients of an update, and forget them."""
        import torch

        from studio.data.prepare.batch import row_length
        from studio.train.trainers.grouped import Collator

        trainer = self.trainer
        parts = Collator(trainer.data_collator, self.batching, 1)(batch)
        items = trainer._get_num_items_in_batch([parts], torch.device("cpu"))
        started = time.perf_counter()
        loss = trainer.training_step(trainer.model, parts, items)
        seconds = time.perf_counter() - started
        trainer.model.zero_grad()
        self.speeds.append(sum(row_length(row) for row in batch) / seconds)
        self.losses.append(float(loss))


def compare(pairs: int = PAIRS, tuning: str = "lora") -> dict[str, Side]:
    """Compute the same updates with and without, one pair more than is counted."""
    from tests.parity.made import make_trainer

    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):
        model = copy_model(Path(folder))
        rows_file = write(Path(folder), BATCH * (pairs + 1))
        for kernels in ("off", "auto"):
            raw = config_of(rows_file, batch_size=BATCH, kernels=kernels, max_steps=pairs)
            raw["model"]["path"], raw["tuning"] = str(model), {"name": tuning, "rank": 16}
            made = make_trainer(raw, model, Path(folder) / kernels, read_settings())
            made.trainer.create_optimizer()
            sides[kernels] = Side(made.trainer, made.setup.plan.batching)
        rows = list(sides["off"].trainer.train_dataset)
        for pair in range(pairs + 1):
            for side in sides.values():
                side.update(rows[BATCH * pair : BATCH * (pair + 1)])
    for side in sides.values():
        del side.speeds[0]  # threads and memory are got ready in the first
    return sides


def main(pairs: int, tuning: str) -> int:
    """Measure and print; returns 1 where the goal is missed."""
    sides = compare(pairs, tuning)
    off, auto = sides["off"], sides["auto"]
    ratios = [b / a for a, b in zip(off.speeds, auto.speeds, strict=True)]
    for a, b in zip(off.speeds, auto.speeds, strict=True):
        print(f"{a:.0f} and {b:.0f} tokens/s")
    print(
        f"{tuning}: median {median(off.speeds):.0f} without, {median(auto.speeds):.0f} with; ratio "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    far = max(abs(a - b) / abs(a) for a, b in zip(off.losses, auto.losses, strict=True))
    print(f"losses {', '.join(f'{loss:.4f}' for loss in auto.losses)}; at most {far:.1e} from those without")
    return int(median(ratios) < GOAL)


if __name__ == "__main__":
    named = sys.argv[1:]
    raise SystemExit(main(int(named[0]) if named else PAIRS, named[1] if len(named) > 1 else "lora"))
