"""How soon the studio and plain TRL with PEFT reach the same loss on rows that neither was trained on, turn about.

    python -m tests.benchmarks.beside.learning [PAIRS] [SET …]      1 pair of each set
- `demo`: the demo's rows (68 tokens on average); its validation rows are held out
- `alpaca`: rows like Alpaca's (212 tokens); the rows that come after them are held out
SmolLM2-135M-Instruct, LoRA of rank 16, the studio with everything on auto, TRL with the settings that are fastest on a
CPU (`sides`). Both see the same rows in the same order, so they have learned the same after as many updates, which the
losses at the end show; the time is that of the updates. Prints a table, and exits with 1 where a goal is missed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median

from studio.settings import ASSETS
from tests.benchmarks.beside.sides import Case, Done, pairs
from tests.benchmarks.beside.trl import rows_of, write
from tests.benchmarks.preparation import asked_for, own_home
from tests.support.prepared import copy_model

PAIRS = 1
GOAL = 0.5  # of TRL's time
SAME = 1e-3  # of the loss
BATCH, RATE = 8, 1e-3
SETS = {"demo": 24, "alpaca": 6}  # updates
HELD = 40


def case_of(name: str, model: Path, folder: Path) -> Case:
    """The training of a set, its rows written to `folder`.

    Args:
        name: of `SETS`.
        model: folder of a checkpoint.
        folder: for the rows.
    """
    count = BATCH * SETS[name]
    if name == "demo":
        files = (ASSETS / "demo" / f"{kind}.jsonl" for kind in ("train", "validation"))
        train, held = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    else:
        every = list(rows_of("sft", count + HELD))
        train, held = every[:count], every[count:]
    paths = [write(folder / f"{name}-{kind}.jsonl", islice(rows, most)) for kind, rows, most in (
        ("train", train, count), ("held", held, HELD))]  # fmt: skip
    return Case(str(model), paths[0], batch=BATCH, steps=SETS[name], rate=RATE, held=paths[1])


def share(pair: dict[str, Done]) -> float:
    """The part of TRL's time in which the studio did the same updates."""
    return pair["studio"].seconds / pair["trl"].seconds


def reached(found: list[dict[str, Done]]) -> bool:
    """Whether the same was learned, and in the part of the time that is the goal."""
    apart = max(abs(pair["studio"].held / pair["trl"].held - 1) for pair in found)
    return apart <= SAME and median(map(share, found)) <= GOAL


def line(name: str, found: list[dict[str, Done]]) -> str:
    """A row of the table of docs/benchmarks.md."""
    shares = [share(pair) for pair in found]
    ours, theirs = (median(pair[side].seconds for pair in found) for side in ("studio", "trl"))
    cost = median(pair["studio"].processor / pair["trl"].processor for pair in found)
    losses = [found[0][side].held for side in ("studio", "trl")]
    return (
        f"| {name}, {SETS[name]} updates of {BATCH} rows | {ours:.0f} s | {theirs:.0f} s "
        f"| {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}); processor time {cost:.2f} "
        f"| {losses[0]:.4f} | {losses[1]:.4f} |"
    )


def main(count: int, names: list[str]) -> int:
    """Measure and print; returns 1 where a goal is missed."""
    missed = []
    with tempfile.TemporaryDirectory() as name, own_home(Path(name)):
        folder = Path(name)
        model = copy_model(folder / "home")
        print("| rows | the studio | TRL | part of its time | held-out loss | TRL's |\n|---|---|---|---|---|---|")
        for one in names:
            found = pairs(case_of(one, model, folder), count, folder / one)
            print(line(one, found), flush=True)
            missed += [] if reached(found) else [one]
    for one in missed:
        print(f"missed: {one}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main(*asked_for(PAIRS, SETS)))
