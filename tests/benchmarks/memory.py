"""The memory plan beside the measured peak of the training process, for cells of the matrix.

    python -m tests.benchmarks.memory [--fused]  all of `CELLS`, in a home of its own; about 20 minutes on two cores
Prints the table of docs/memory.md and exits with 1 when a cell is off by more than its bound.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.jobs import JobFolder
from studio.methods import METHODS
from tests.conftest import run_studio

# Long enough that batches of several lengths were seen. Whole runs with validations: `tests.benchmarks.methods`.
STEPS = 8
# method, tuning, rows computed at a time
CELLS = [
    ("sft", "full", 8), ("sft", "full", 32), ("sft", "lora", 2), ("sft", "lora", 8), ("sft", "lora", 32),
    ("sft", "qlora", 8), ("sft", "dora", 8), ("sft", "dora", 32),
    ("pretrain", "full", 8), ("pretrain", "lora", 8), ("pretrain", "lora", 32),
    ("dpo", "full", 8), ("dpo", "lora", 8), ("dpo", "lora", 32), ("dpo", "qlora", 8),
    ("orpo", "full", 8), ("orpo", "lora", 32), ("orpo", "dora", 8),
    ("kto", "full", 32), ("kto", "lora", 8),
    ("reward", "full", 8), ("reward", "lora", 8), ("reward", "lora", 32),
    ("ppo", "lora", 16), ("ppo", "lora", 32), ("ppo", "qlora", 16),
    ("grpo", "full", 16), ("grpo", "lora", 16), ("grpo", "qlora", 16),
]  # fmt: skip
# With the engine's layers (`training.kernels`).
FUSED = [
    ("sft", "full", 8), ("sft", "lora", 2), ("sft", "lora", 8), ("sft", "lora", 32), ("sft", "qlora", 8),
    ("sft", "dora", 8), ("sft", "dora", 32), ("pretrain", "lora", 8), ("dpo", "lora", 8), ("dpo", "qlora", 8),
    ("orpo", "lora", 32), ("orpo", "dora", 8), ("kto", "lora", 8), ("reward", "lora", 8), ("ppo", "lora", 16),
    ("grpo", "lora", 16),
]  # fmt: skip
BOUND = {True: 0.15, False: 0.10}


@dataclass(frozen=True)
class Peak:
    """One run.

    Attributes:
        planned, measured: peak memory of the training process in bytes.
        parts: the plan's, by name.
        micro_batch: rows computed at a time.
        bound: largest share by which the plan may be off.
    """

    method: str
    tuning: str
    micro_batch: int
    planned: int
    measured: int
    parts: dict[str, int]
    bound: float

    @property
    def off(self) -> float:
        """By what share of the measured peak the plan is above it."""
        return self.planned / self.measured - 1

    @property
    def missed(self) -> bool:
        """Whether that is more than it may be."""
        return abs(self.off) > self.bound

    def row(self) -> str:
        """The row of docs/memory.md."""
        return (
            f"| {self.method} | {self.tuning} | {self.micro_batch} | {self.planned / 1e9:.2f} "
            f"| {self.measured / 1e9:.2f} | {self.off:+.0%} |"
        )


def peaks(home: Path, cells: list[tuple[str, str, int]], kernels: str = "off") -> Iterator[Peak]:
    """Train each cell's demo for some steps, one after the other, with `training.kernels` as given."""
    for method, tuning, rows in cells:
        changes = {
            "tuning.name": tuning, "training.batch_size": rows, "training.micro_batch_size": rows,
            "training.max_steps": STEPS, "data.validation": 0, "training.kernels": kernels,
        }  # fmt: skip
        options = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
        name = f"memory-{method}-{tuning}-{rows}"
        done = run_studio("train", f"demo/{method}", "--name", name, "--json", *options, home=home, seconds=1800)
        assert done.code == 0, f"{name}: {done.stderr}"
        environment = JobFolder(Path(done.json["path"])).environment()
        plan = environment["plan"]
        yield Peak(
            method, tuning, plan["micro_batch"], plan["total_bytes"], environment["peak_memory_bytes"],
            plan["memory"], BOUND[METHODS[method].online],
        )  # fmt: skip


def main(names: list[str]) -> int:
    """Measure the cells named as METHOD-TUNING-ROWS, or all, fused with --fused; returns the exit code."""
    fused = "--fused" in names
    wanted = [name for name in names if name != "--fused"]
    cells = [cell for cell in (FUSED if fused else CELLS) if not wanted or "-".join(map(str, cell)) in wanted]
    missed = []
    print("| method | tuning | micro-batch | planned, GB | measured, GB | off |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for peak in peaks(Path(folder) / "home", cells, "auto" if fused else "off"):
            print(peak.row(), flush=True)
            print({name: f"{size / 1e9:.2f}" for name, size in peak.parts.items()}, file=sys.stderr)
            if peak.missed:
                missed.append(f"{peak.method} × {peak.tuning} × {peak.micro_batch}")
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
