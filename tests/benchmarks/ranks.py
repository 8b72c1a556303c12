"""Tokens a second of a run on two processes of the CPU beside the same run on one, turn about. No goal.

    python -m tests.benchmarks.ranks [PAIRS]      2 pairs; about eight minutes
Each process of two has one core, and both what one has, so that nothing is to be gained here: it shows what sharing
costs. The embedded model, LoRA, float32, rows like Alpaca's, 8 of them an update; the first two steps are left out.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from studio.jobs import read_events, submit, wait
from studio.settings import read_settings
from tests.benchmarks.auto import config_of, write
from tests.benchmarks.preparation import own_home
from tests.support.prepared import copy_model

PAIRS, STEPS, LEFT_OUT, BATCH, RANKS = 2, 8, 2, 8, 2
SECONDS = 400


@dataclass
class Speeds:
    """Tokens a second of each run (padding not counted), and the losses of the last one, by number of processes."""

    by_ranks: dict[int, list[float]] = field(default_factory=lambda: {1: [], RANKS: []})
    losses: dict[int, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Speed of several over that of one, medians."""
        return median(self.by_ranks[RANKS]) / median(self.by_ranks[1])

    @property
    def apart(self) -> float:
        """By how much a loss differs at most, relative to it."""
        pairs = zip(self.losses[1], self.losses[RANKS], strict=True)
        return max(abs(one - other) / abs(one) for one, other in pairs)


def measure(pairs: int = PAIRS) -> Speeds:
    """Run both turn about."""
    found = Speeds()
    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):
        model, settings = copy_model(Path(folder)), read_settings()
        raw = config_of(write(Path(folder), BATCH * STEPS), batch_size=BATCH, max_steps=STEPS)
        raw["model"] |= {"path": str(model), "dtype": "float32"}
        for turn in range(pairs):
            for ranks, speeds in found.by_ranks.items():
                training = raw["training"] | {"devices": ranks}
                job = submit(settings, "train", f"ranks-{ranks}-{turn}", raw | {"training": training})
                state = wait(job, seconds=SECONDS)
                if state.status != "completed":
                    raise SystemExit(f"{job.id}: {state.reason}")
                steps = _steps(read_events(job.events_path, 0, 10**8)[0])
                first, last = steps[LEFT_OUT - 1], steps[-1]
                speeds.append(
                    (last["tokens"] - first["tokens"]) / (last["training_seconds"] - first["training_seconds"])
                )
                found.losses[ranks] = [step["values"]["loss"] for step in steps]
    return found


def _steps(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == "metric" and "loss" in event["values"]]


def main(pairs: int) -> int:
    """Measure and print."""
    found = measure(pairs)
    for ranks, speeds in found.by_ranks.items():
        print(f"{ranks}: median {median(speeds):.1f} tokens/s ({', '.join(f'{speed:.1f}' for speed in speeds)})")
    print(f"{RANKS} beside 1: {found.ratio:.2f} times; losses at most {found.apart:.1e} apart")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if sys.argv[1:] else PAIRS))
