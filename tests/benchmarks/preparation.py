"""How fast rows become masked tokens, beside TRL's own preparation of the same rows, on the same cores in one run.

    python -m tests.benchmarks.preparation MODEL [ROWS]      MODEL: a folder with a tokenizer; 100,000 rows by default
Rows are like those of Alpaca: an instruction, in four of ten an input, an answer of one to six sentences, taken from
Python's own reference. The studio reads them from a file, TRL has them in memory; both apply a chat template, tokenize
and mark the answers. TRL packs them too, where it is asked; the studio packs in the batch. Each goes over some rows
first, so that no library is imported in the time that counts. `studio data inspect` reads the same file, in its own
processes, whose memory is watched.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import psutil
import pytest

ROWS = 100_000
WARM_ROWS = 300
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
        inspected: `inspect` by the data worker.
        inspected_bytes: of all processes of `studio data inspect` together, at most.
    """

    rows: int
    first: float
    again: float
    trl: float
    trl_packed: float
    different: int
    inspected: float
    inspected_bytes: int


def measure(model: Path, rows: int = ROWS) -> Measured:
    """Prepare the same rows three ways."""
    import datasets
    from transformers import AutoTokenizer

    from studio.config import RunConfig
    from studio.config.load import build
    from studio.data.prepare.pipeline import prepare_data
    from studio.data.worker.client import DataWorker
    from studio.settings import read_settings
    from tests.data.templates import CHATML, CHATML_GENERATION

    plain, annotated = (AutoTokenizer.from_pretrained(model, local_files_only=True) for _ in range(2))
    plain.chat_template, annotated.chat_template = CHATML, CHATML_GENERATION
    datasets.disable_caching()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):

        def ours(many: int) -> list[Any]:
            data = {"train": [{"path": f"{folder}/{many}.jsonl"}], "validation": 0, "max_length": MAX_LENGTH}
            config = build(RunConfig, {"data": data})
            return prepare_data(config.data, config.method, plain, read_settings()).train

        def theirs(many: int, packing: bool) -> Any:
            return trl_trainer(made[many], annotated, Path(folder), packing).train_dataset

        made = {many: alpaca_rows(many) for many in (WARM_ROWS, rows)}
        for many, some in made.items():
            Path(folder, f"{many}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        ours(WARM_ROWS)
        theirs(WARM_ROWS, True)
        units, first = timed(lambda: ours(rows))
        _, again = timed(lambda: ours(rows))
        dataset, unpacked = timed(lambda: theirs(rows, False))
        different = sum(
            unit.input_ids != row["input_ids"] or unit.labels != row["labels"]
            for unit, row in zip(units, dataset, strict=True)
        )
        del units, dataset
        _, packed = timed(lambda: theirs(rows, True))
        chatml = with_chatml(model, Path(folder, "chatml"))
        with contextlib.closing(DataWorker(read_settings())) as worker:
            worker.call("inspect", path=f"{folder}/{WARM_ROWS}.jsonl", model=str(chatml))
            _, inspected = timed(lambda: worker.call("inspect", path=f"{folder}/{rows}.jsonl", model=str(chatml)))
        found, peak = watched("data", "inspect", f"{folder}/{rows}.jsonl", "--model", str(model), "--json")
        assert json.loads(found)["rows"] == rows
    return Measured(
        rows, rows / first, rows / again, rows / unpacked, rows / packed, different, rows / inspected, peak
    )  # fmt: skip


def with_chatml(model: Path, folder: Path) -> Path:
    """The tokenizer of a model with the template of the other measurements, as a folder."""
    from tests.data.templates import CHATML

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def watched(*arguments: str) -> tuple[str, int]:
    """What `studio` prints, and the largest sum of the resident memory of its processes (bytes, looked at 50 times a
    second; a page that several share counts for each)."""
    with tempfile.TemporaryFile("w+") as out:
        started = psutil.Popen([sys.executable, "-m", "studio", *arguments], stdout=out, stderr=subprocess.DEVNULL)
        peak = 0
        while started.poll() is None:
            peak = max(peak, _resident(started))
            time.sleep(0.02)
        assert started.wait() == 0
        out.seek(0)
        return out.read(), peak


def _resident(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


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
    """Make rows of sentences of Python's own reference (pydoc), the same each time."""
    rng = random.Random(5)
    text = re.sub(r"\s+", " ", " ".join(topics.values()))
    sentences = [one for one in re.split(r"(?<=[.:?]) ", text) if 20 < len(one) < 300]

    def some(least: int, most: int) -> str:
        return " ".join(rng.choices(sentences, k=rng.randint(least, most)))

    return [
        {"instruction": some(1, 1), "input": some(1, 2) if rng.random() < 0.4 else "", "output": some(1, 6)}
        for _ in range(count)
    ]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds it took."""
    started = time.perf_counter()
    done = work()
    return done, time.perf_counter() - started


def asked_for(pairs: int, cases: Iterable[str]) -> tuple[int, list[str]]:
    """Read a benchmark's command line, `[PAIRS] [CASE …]`: how many pairs of which cases.

    Args:
        pairs: where no number is given.
        cases: all of them, where none is named.
    """
    asked = sys.argv[1:]
    numbers, named = [one for one in asked if one.isdigit()], [one for one in asked if not one.isdigit()]
    return int(numbers[0]) if numbers else pairs, named or list(cases)


@contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """A studio of its own in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(folder / "home"))
        yield


if __name__ == "__main__":
    model_folder = Path(sys.argv[1])
    print(measure(model_folder, int(sys.argv[2]) if len(sys.argv) > 2 else ROWS))
