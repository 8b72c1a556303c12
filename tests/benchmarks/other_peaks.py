"""The memory plan beside the measured peak for rows and options that the demos do not have.

    python -m tests.benchmarks.other_peaks [NAME …]  all of `CASES`, in a home of its own
Everything but what a case says is on auto. Prints the table of docs/memory.md and exits with 1 when a case is off by
more than its bound.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.jobs import JobFolder
from studio.methods import METHODS
from tests.benchmarks.memory import BOUND, Peak
from tests.benchmarks.preparation import alpaca_rows
from tests.conftest import run_studio

_SEED = 7
Between = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        answer, prompt: words of each, from and to.
        count: rows.
        options: by dotted name, what is not on auto.
    """

    name: str
    method: str
    tuning: str
    answer: Between
    count: int = 64
    prompt: Between = (10, 20)
    options: dict[str, Any] = field(default_factory=dict)


_WRITTEN = {"method.rewards": ["length"], "method.reward_length": 20, "training.batch_size": 16}
_FOUR = {"training.batch_size": 4}
CASES = [
    Case("sft-full", "sft", "full", (200, 400), options=_FOUR),
    Case("sft-full-parts", "sft", "full", (200, 400)),
    Case("sft-full-long", "sft", "full", (700, 1300), 16, options={"training.batch_size": 2}),
    Case("sft-full-short", "sft", "full", (20, 60), 128),
    Case("sft-dora-r64", "sft", "dora", (40, 90), 256, options={"tuning.rank": 64, "training.batch_size": 32}),
    Case("sft-qlora-long", "sft", "qlora", (700, 1300), 16, options={"training.batch_size": 2}),
    Case("sft-validated", "sft", "lora", (40, 400), options={"data.validation": 0.3, "training.eval_steps": 2}),
    Case("sft-recomputed", "sft", "lora", (1800, 2200), 8,
         options={"training.activation_checkpointing": True, "training.batch_size": 2}),
    Case("sft-qv-r128", "sft", "lora", (60, 200), 96,
         options={"tuning.rank": 128, "tuning.target_modules": ["q_proj", "v_proj"], "training.batch_size": 16}),
    Case("sft-dropout", "sft", "lora", (60, 200), options={"tuning.dropout": 0.1}),
    Case("sft-noise", "sft", "lora", (60, 200), options={"method.neftune_noise_alpha": 5}),
    Case("sft-float32", "sft", "lora", (60, 200), options={"model.dtype": "float32"}),
    Case("sft-off", "sft", "lora", (100, 200), options={"training.kernels": "off", "training.micro_batch_size": 4}),
    Case("sft-full-off", "sft", "full", (200, 400), options={**_FOUR, "training.kernels": "off"}),
    Case("sft-head", "sft", "lora", (100, 200), options={"tuning.modules_to_save": ["lm_head"]}),
    Case("sft-6000", "sft", "lora", (3800, 4300), 6, options={"training.batch_size": 1}),
    Case("pretrain-full", "pretrain", "full", (100, 400), options=_FOUR),
    Case("pretrain-dora", "pretrain", "dora", (100, 300)),
    Case("pretrain-packed", "pretrain", "lora", (300, 1200), options={"training.padding_free": True}),
    Case("dpo-prompts", "dpo", "lora", (60, 120), 32, (300, 500), _FOUR),
    Case("dpo-full", "dpo", "full", (20, 60)),
    Case("dpo-dora", "dpo", "dora", (60, 160), 32, options=_FOUR),
    Case("dpo-off", "dpo", "lora", (60, 160), 32,
         options={**_FOUR, "training.kernels": "off", "training.activation_checkpointing": True}),
    Case("orpo-lora", "orpo", "lora", (40, 200)),
    Case("orpo-qlora", "orpo", "qlora", (40, 200)),
    Case("orpo-full", "orpo", "full", (60, 160), 32, options=_FOUR),
    Case("simpo-full", "simpo", "full", (100, 300), 32, options=_FOUR),
    Case("kto-lora", "kto", "lora", (100, 250)),
    Case("kto-dora", "kto", "dora", (60, 150)),
    Case("kto-full", "kto", "full", (60, 150)),
    Case("reward-full", "reward", "full", (40, 120)),
    Case("reward-long", "reward", "lora", (300, 500), 16, options=_FOUR),
    Case("grpo-lora", "grpo", "lora", (1, 2), 32,
         options={**_WRITTEN, "method.num_generations": 8, "method.max_completion_length": 64}),
    Case("grpo-full", "grpo", "full", (1, 2), 32,
         options={**_WRITTEN, "method.num_generations": 4, "method.max_completion_length": 64}),
    Case("grpo-prompts", "grpo", "qlora", (1, 2), 32, (80, 150),
         {**_WRITTEN, "method.num_generations": 4, "method.max_completion_length": 48}),
    Case("ppo-lora", "ppo", "lora", (1, 2), 32, options={**_WRITTEN, "method.max_completion_length": 48}),
    Case("ppo-full", "ppo", "full", (1, 2), 32,
         options={**_WRITTEN, "method.max_completion_length": 32, "training.batch_size": 8}),
]  # fmt: skip


class Writer:
    """Rows of sentences of Python's reference, the same each time."""

    def __init__(self) -> None:
        self._sentences = [part for row in alpaca_rows(2000) for part in (row["instruction"], row["input"]) if part]
        self._drawn = random.Random(_SEED)

    def rows(self, case: Case) -> Iterator[dict[str, Any]]:
        """As the case's method reads them."""
        for number in range(case.count):
            prompt, answer = self._text(case.prompt), self._text(case.answer)
            yield {
                "answers": {
                    "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
                },
                "text": {"text": answer},
                "pairs": {"prompt": prompt, "chosen": answer, "rejected": self._text(case.answer)},
                "prompts": {"prompt": prompt, "answer": str(number)},
            }[_kind(case.method)]

    def _text(self, between: Between) -> str:
        wanted, words = self._drawn.randint(*between), []
        while len(words) < wanted:
            words += self._drawn.choice(self._sentences).split()
        return " ".join(words[:wanted])


def _kind(method: str) -> str:
    if method == "pretrain":
        return "text"
    return "pairs" if method == "kto" else METHODS[method].rows


def peak(case: Case, home: Path, writer: Writer) -> Peak:
    """Train a case for six steps, fewer where a step is long.

    Args:
        case: the run.
        home: the studio's.
        writer: of its rows.
    """
    rows = home.parent / f"{case.name}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in writer.rows(case)), encoding="utf-8")
    document: dict[str, Any] = {"data": {"train": [{"path": str(rows)}]}, "method": {"name": case.method}}
    steps = 3 if METHODS[case.method].online or case.answer[1] > 1500 else 6
    for path, value in {
        "tuning.name": case.tuning, "training.max_steps": steps, "data.validation": 0, **case.options,
    }.items():  # fmt: skip
        section, _, name = path.partition(".")
        document.setdefault(section, {})[name] = value
    config = home.parent / f"{case.name}.yaml"
    config.write_text(json.dumps(document), encoding="utf-8")  # which is YAML, too
    done = run_studio("train", str(config), "--name", case.name, "--json", home=home, seconds=1800)
    assert done.code == 0, f"{case.name}: {done.stderr}"
    environment = JobFolder(Path(done.json["path"])).environment()
    plan = environment["plan"]
    return Peak(
        case.name, case.tuning, plan["micro_batch"], plan["total_bytes"], environment["peak_memory_bytes"],
        plan["memory"], BOUND[METHODS[case.method].online],
    )  # fmt: skip


def main(names: list[str]) -> int:
    """Measure the cases of these names, or all; returns the exit code."""
    missed, writer = [], Writer()
    print("| run | tuning | micro-batch | planned, GB | measured, GB | off |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if names and case.name not in names:
                continue
            found = peak(case, Path(folder) / "home", writer)
            print(found.row(), flush=True)
            missed += [case.name] if found.missed else []
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
