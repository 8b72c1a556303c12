"""Answers written by the studio beside plain transformers and TRL: the same weights and prompts, turn about.

    python -m tests.benchmarks.generation [PAIRS] [CASE …]      3 pairs of each case
- `evaluation`: base answers to the demo's 120 rows, by `evaluate.answers` and by `generate` in batches of 32
- `grpo`: 16 answers of 24 tokens, four to each of four prompts, by our trainer and by TRL's method of it
- `ppo`: 16 answers of 24 tokens by our writer, and by the same with transformers' own loop
In the number format that is faster here. Prints tokens a second of each pair, medians, the ratio with its spread, and
how many rows differ (bfloat16 rounds, so near ties do; in float32 none does: tests/writing). Exits with 1 below
`GOALS`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from studio.processes import for_libraries
from studio.settings import ASSETS, read_settings
from tests.benchmarks.preparation import asked_for, own_home
from tests.support.prepared import copy_model

PAIRS = 3
GOALS = {"evaluation": 2.0, "grpo": 2.0, "ppo": 2.0}
ROWS, GROUP, TOKENS = 16, 4, 24


@dataclass(frozen=True)
class Pair:
    """Seconds of both sides, tokens that each wrote, and how many rows differ."""

    ours: float
    theirs: float
    tokens: tuple[int, int]
    different: int

    @property
    def ratio(self) -> float:
        """By how much the studio writes more tokens in the same time."""
        return (self.tokens[0] / self.ours) / (self.tokens[1] / self.theirs)


Side = Callable[[], list[list[int]]]


def pairs(case: str, count: int = PAIRS) -> list[Pair]:
    """Run a case, one pair more than is counted."""
    from studio.models.catalog.quiet import quiet_libraries

    quiet_libraries()
    found: list[Pair] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        own_home(Path(folder)),
        SIDES[case](copy_model(Path(folder)), Path(folder)) as (ours, theirs),
    ):
        for number in range(count + 1):
            (mine, seconds), (other, more) = _timed(ours, number), _timed(theirs, number)
            different = sum(a != b for a, b in zip(mine, other, strict=True))
            found.append(Pair(seconds, more, (sum(map(len, mine)), sum(map(len, other))), different))
    return found[1:]  # threads and memory are got ready in the first


def _timed(side: Side, seed: int) -> tuple[list[list[int]], float]:
    import torch

    torch.manual_seed(seed)
    started = time.perf_counter()
    written = side()
    return written, time.perf_counter() - started


@contextmanager
def _evaluation(model_path: Path, folder: Path) -> Iterator[tuple[Side, Side]]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    from studio.evaluate.answers import answer_all
    from studio.evaluate.loading import computing, load_model
    from studio.evaluate.measures import SPARE_TOKENS
    from studio.evaluate.questions import read_questions
    from studio.models.device.machine import device_info

    tokenizer: Any = AutoTokenizer.from_pretrained(model_path)
    questions = read_questions(ASSETS / "demo" / "test.jsonl", tokenizer)
    most = max(len(one.answer_ids) for one in questions) + SPARE_TOKENS
    adapter = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    dtype = torch.bfloat16 if device_info(read_settings(), measure=True).bf16_fast else torch.float32
    model: Any = get_peft_model(load_model(model_path, dtype), adapter).eval()
    order = sorted(range(len(questions)), key=lambda at: len(questions[at].prompt_ids))

    def ids(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]

    def ours() -> list[list[int]]:
        return ids([one.text for one in answer_all(model, tokenizer, questions, most, lambda done: None)])

    @torch.no_grad()
    def theirs() -> list[list[int]]:
        texts: dict[int, str] = {}
        for at in range(0, len(order), 32):
            part = order[at : at + 32]
            given = tokenizer.pad(
                {"input_ids": [questions[one].prompt_ids for one in part]}, padding_side="left", return_tensors="pt"
            )
            written = model.generate(**given, max_new_tokens=most, do_sample=False)
            said = tokenizer.batch_decode(written[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
            texts |= zip(part, said, strict=True)
        return ids([texts[at] for at in range(len(questions))])

    with computing(dtype), model.disable_adapter():
        yield ours, theirs


def _trainer(method: str, model_path: Path, folder: Path) -> Any:
    """The studio's trainer of an online method on the demo's sums."""
    from tests.parity.made import make_trainer

    raw: dict[str, Any] = {
        "model": {"path": str(model_path)},
        "data": {"train": [{"path": str(ASSETS / "demo" / "sums_train.jsonl")}]},
        "method": {"name": method, "rewards": ["length"], "temperature": 0.7, "max_completion_length": TOKENS},
        "tuning": {"name": "lora", "rank": 16},
        "training": {"max_steps": 1, "batch_size": ROWS, "kernels": "off"},
    }
    if method == "grpo":
        raw["method"]["num_generations"] = GROUP
    made = make_trainer(raw, model_path, folder / method, read_settings())
    for name, weight in made.trainer.model.named_parameters():
        if "lora_B.default" in name:
            weight.data.normal_(0, 0.01)
    return made.trainer


@contextmanager
def _grpo(model_path: Path, folder: Path) -> Iterator[tuple[Side, Side]]:
    from trl import GRPOTrainer

    trainer = _trainer("grpo", model_path, folder)
    asked = [row["prompt"] for row in trainer.train_dataset.select(range(ROWS // GROUP)) for _ in range(GROUP)]
    prompts, *_ = trainer._tokenize_prompts(asked)

    def ours() -> list[list[int]]:
        return trainer._generate_single_turn(prompts, None, {}, GROUP)[0]  # type: ignore[no-any-return]

    def theirs() -> list[list[int]]:
        return GRPOTrainer._generate_single_turn(trainer, prompts, None, {}, GROUP)[0]  # type: ignore[no-any-return]

    yield ours, theirs


@contextmanager
def _ppo(model_path: Path, folder: Path) -> Iterator[tuple[Side, Side]]:
    from studio.train.trainers import rollouts

    trainer = _trainer("ppo", model_path, folder)
    prompts = trainer.setup.train[:ROWS]

    def ours() -> list[list[int]]:
        with trainer._judging():
            batch = trainer._writer.write(prompts, sample=True)
        length = batch["completion_mask"].shape[1]
        answers = zip(batch["input_ids"][:, -length:].tolist(), batch["completion_mask"].sum(-1).tolist(), strict=True)
        return [answer[:count] for answer, count in answers]

    def theirs() -> list[list[int]]:
        with patch.object(rollouts, "quicker", lambda *_: nullcontext()):
            return ours()

    yield ours, theirs


SIDES: dict[str, Callable[[Path, Path], Any]] = {"evaluation": _evaluation, "grpo": _grpo, "ppo": _ppo}


def line(case: str, found: list[Pair]) -> str:
    """What was measured, in a line."""
    ratios = [one.ratio for one in found]
    speeds = [median(one.tokens[0] / one.ours for one in found), median(one.tokens[1] / one.theirs for one in found)]
    return (
        f"{case}: {speeds[0]:.0f} and {speeds[1]:.0f} tokens/s ({median(one.ours for one in found):.1f} and "
        f"{median(one.theirs for one in found):.1f} s); ratio {median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}); rows that differ: {', '.join(str(one.different) for one in found)}"
    )


def main(count: int, cases: list[str]) -> int:
    """Measure and print; returns 1 where a goal is missed."""
    os.environ.update(for_libraries())  # as the studio's jobs have it, before torch is imported
    missed = 0
    for case in cases:
        found = pairs(case, count)
        for one in found:
            speeds = one.tokens[0] / one.ours, one.tokens[1] / one.theirs
            print(f"{case}: {speeds[0]:.0f} and {speeds[1]:.0f} tokens/s", flush=True)
        print(line(case, found), flush=True)
        missed += median(one.ratio for one in found) < GOALS[case]
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main(*asked_for(PAIRS, GOALS)))
