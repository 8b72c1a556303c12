"""How fast rows become masked tokens, beside TRL's own preparation of the same rows, on the same cores in one run.

    python -m tests.benchmarks.preparation MODEL [ROWS]      MODEL: a folder with a tokenizer; 100,000 rows by default
Rows are like those of Alpaca: an instruction, in four of ten an input, an answer of 10 to 120 words drawn from 20,000
made-up ones as often as words of a language are (Zipf). Both read rows that lie in memory or on disk, apply a chat
template, tokenize and mark the answers. TRL packs them too, where it is asked; the studio packs in the batch.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROWS = 100_000
WORDS = 20_000
MAX_LENGTH = 1024


@dataclass(frozen=True)
class Measured:
    """Rows a second by each, and whether tokens and masks were equal.

    Attributes:
        first: the studio, the first time.
        again: the studio with the tokens kept from then.
        trl: TRL without packing.
        trl_packed: TRL with packing.
        different: rows whose ids or marked tokens differ.
    """

    rows: int
    first: float
    again: float
    trl: float
    trl_packed: float
    different: int


def measure(model: Path, rows: int = ROWS) -> Measured:
    """Prepare the same rows three ways."""
    import datasets
    from transformers import AutoTokenizer

    from studio.config import RunConfig
    from studio.config.load import build
    from studio.data.prepare import prepare_data
    from studio.settings import read_settings
    from tests.data.templates import CHATML, CHATML_GENERATION

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    made = alpaca_rows(rows)
    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
        config = build(RunConfig, {"data": {"train": [{"path": str(file)}], "validation": 0, "max_length": MAX_LENGTH}})
        tokenizer.chat_template = CHATML

        def ours() -> list[Any]:
            return prepare_data(config.data, config.method, tokenizer, read_settings()).train

        units, first = timed(ours)
        _, again = timed(ours)
        datasets.disable_caching()
        annotated = AutoTokenizer.from_pretrained(model, local_files_only=True)
        annotated.chat_template = CHATML_GENERATION
        trainer, theirs = timed(lambda: trl_trainer(made, annotated, Path(folder), packing=False))
        _, packed = timed(lambda: trl_trainer(made, annotated, Path(folder), packing=True))
        different = sum(
            unit.input_ids != row["input_ids"]
            or [int(label != -100) for label in unit.labels] != row["assistant_masks"]
            for unit, row in zip(units, trainer.train_dataset, strict=True)
        )
    return Measured(rows, rows / first, rows / again, rows / theirs, rows / packed, different)


def trl_trainer(rows: list[dict[str, str]], tokenizer: Any, folder: Path, packing: bool) -> Any:
    """TRL's SFTTrainer over these rows; it prepares them when it is made. The model is the least there can be."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    said = [
        [{"role": "user", "content": "\n".join(filter(None, (row["instruction"], row["input"])))},
         {"role": "assistant", "content": row["output"]}]
        for row in rows
    ]  # fmt: skip
    arguments = SFTConfig(
        output_dir=str(folder / "trl"), max_length=MAX_LENGTH, report_to="none", use_cpu=True, bf16=False,
        packing=packing, assistant_only_loss=True,
    )  # fmt: skip
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return SFTTrainer(
        model=LlamaForCausalLM(tiny), args=arguments, train_dataset=Dataset.from_dict({"messages": said}),
        processing_class=tokenizer,
    )  # fmt: skip


def alpaca_rows(count: int) -> list[dict[str, str]]:
    """Make rows, the same each time."""
    rng = random.Random(5)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(WORDS)]
    often = list(itertools.accumulate(1 / rank for rank in range(1, WORDS + 1)))

    def text(least: int, most: int) -> str:
        return " ".join(rng.choices(words, cum_weights=often, k=rng.randint(least, most))).capitalize() + "."

    return [
        {"instruction": text(6, 25), "input": text(5, 30) if rng.random() < 0.4 else "", "output": text(10, 120)}
        for _ in range(count)
    ]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds it took."""
    started = time.perf_counter()
    done = work()
    return done, time.perf_counter() - started


@contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """A studio of its own in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(folder / "home"))
        yield


if __name__ == "__main__":
    model_folder = Path(sys.argv[1])
    print(measure(model_folder, int(sys.argv[2]) if len(sys.argv) > 2 else ROWS))
