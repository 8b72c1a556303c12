"""The studio on an NVIDIA GPU beside plain TRL, and LLaMA-Factory with Liger and Unsloth where they are, turn about.

    python -m tests.benchmarks.beside.gpu [PAIRS] [CASE …]      2 pairs of each case; `make bench-gpu`
Models of the shapes of Llama 3 with random weights, LoRA and QLoRA on all linear layers, rows of half to nearly all of
the context. Unsloth is measured if it is installed here, LLaMA-Factory if STUDIO_LLAMA_FACTORY_PYTHON names the Python
of its environment. Writes its table into docs/benchmarks.md. Where there is no GPU it says so and exits with 2.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.beside import peer
from tests.benchmarks.beside.sides import RANK, Beside, Case, Done, measure, pairs
from tests.benchmarks.beside.trl import long_rows, write
from tests.benchmarks.preparation import asked_for, own_home
from tests.support.prepared import prepared

PAIRS = 2
DOCS = Path(__file__).parents[3] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- make bench-gpu writes what follows -->", "<!-- until here -->"
FACTORY = "llama-factory"
TITLES = {"trl": "plain TRL", "unsloth": "Unsloth", FACTORY: "LLaMA-Factory with Liger"}
_LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "rope_theta": 500_000.0}
SHAPES: dict[str, dict[str, Any]] = {
    "1B": _LLAMA | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                    "tie_word_embeddings": True},
    "8B": _LLAMA | {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32},
    "tiny": _LLAMA | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                      "num_key_value_heads": 2, "vocab_size": 49_152},
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A row of the table: a shape, a tuning, tokens of the context, rows of an update, rows at a time, updates."""

    shape: str
    tuning: str
    context: int
    batch: int = 8
    micro: int = 2
    steps: int = 5

    @property
    def name(self) -> str:
        """As it is named on the command line."""
        return f"{self.shape}-{self.tuning}-{self.context}"


CASES = [
    *(Wanted(shape, tuning, 2048) for shape in ("1B", "8B") for tuning in ("lora", "qlora")),
    *(Wanted(shape, tuning, 8192, 4, 1) for shape, tuning in (("1B", "lora"), ("8B", "lora"), ("8B", "qlora"))),
]


def checkpoint(shape: str, folder: Path, device: str) -> Path:
    """Write a model with random weights in bfloat16 and SmolLM2's tokenizer, whose ids are the first of its vocabulary.

    Args:
        shape: of `SHAPES`.
        folder: where it is written.
        device: that draws the numbers.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(max_position_embeddings=16_384, **SHAPES[shape])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(prepared()).save_pretrained(folder)
    return folder


def others() -> tuple[str, ...]:
    """What can be measured here beside the studio."""
    found = ["trl"]
    if find_spec("unsloth"):
        found.append("unsloth")
    if os.environ.get("STUDIO_LLAMA_FACTORY_PYTHON"):
        found.append(FACTORY)
    return tuple(found)


def factory(case: Case, folder: Path) -> Done:
    """Train by LLaMA-Factory with its best settings for a GPU.

    Args:
        case: with the number format and checkpointing that the studio chose.
        folder: for what it writes.
    """
    rows = [json.loads(line)["messages"] for line in Path(case.rows).read_text().splitlines()]
    settings: dict[str, Any] = {
        "model_name_or_path": case.model, "max_steps": case.steps, "use_cpu": case.device == "cpu",
        "bf16": case.dtype == "bfloat16", "enable_liger_kernel": case.device == "cuda", "lora_rank": RANK,
        "packing": False, "neat_packing": False, "disable_gradient_checkpointing": not case.checkpointing,
        "cutoff_len": 8192, "per_device_train_batch_size": case.micro,
        "gradient_accumulation_steps": case.batch // case.micro,
    }  # fmt: skip
    if case.tuning == "qlora":
        settings |= {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": True}
    alpaca = [{"instruction": asked["content"], "input": "", "output": said["content"]} for asked, said in rows]
    done = peer.theirs(folder, os.environ["STUDIO_LLAMA_FACTORY_PYTHON"], alpaca, settings, case.device)
    return Done(done.tokens, done.seconds, done.losses, case.dtype, case.checkpointing, peak=done.peak)


def side(name: str, case: Case, folder: Path) -> Done:
    """Train by one of `others`, or by the studio.

    Args:
        name: which.
        case: what is trained.
        folder: for what it writes.
    """
    return factory(case, folder) if name == FACTORY else measure(name, case, folder)


def lines(wanted: Wanted, found: list[dict[str, Done]]) -> list[str]:
    """The rows of the table for a case, one for each that the studio was put beside."""
    rows = []
    for name in (one for one in found[0] if one != "studio"):
        one = Beside.of(found, name)
        rows.append(
            f"| {wanted.shape}, {wanted.tuning}, {wanted.context:,} tokens | {TITLES[name]} | {one.speeds[0]:,.0f} "
            f"| {one.speeds[1]:,.0f} | {one.ratio:.2f} ({one.least:.2f} to {one.most:.2f}) "
            f"| {one.peaks[0] / 1e9:.2f} ({one.planned / 1e9:.2f}) | {one.peaks[1] / 1e9:.2f} |"
        )
    return rows


def put(docs: Path, table: str) -> None:
    """Write the table between its marks in docs/benchmarks.md."""
    text = docs.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    docs.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def run(cases: list[Wanted], count: int, device: str, docs: Path) -> int:
    """Measure, print and write; returns the exit code.

    Args:
        cases: what is measured.
        count: pairs of each.
        device: cuda, or cpu to try this script.
        docs: the page with the marks.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        print("There is no NVIDIA GPU that torch can use here, so nothing was measured.", file=sys.stderr)
        return 2
    beside = others()
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    missing = [title for key, title in TITLES.items() if key not in beside]
    rows = [
        f"{name}, torch {torch.__version__}, {date.today().isoformat()}."
        + (f" Not measured here: {', '.join(missing)}." if missing else ""), "",
        "| training | beside | the studio, tokens/s | the other | ratio, each pair | peak (planned), GB | the other |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, own_home(Path(folder)):
        for wanted in cases:
            place = Path(folder) / wanted.name
            place.mkdir()
            model = Path(folder) / wanted.shape
            if not model.exists():
                checkpoint(wanted.shape, model, device)
            found = pairs(_case(wanted, model, place, device), count, place, beside, by=side)
            rows += lines(wanted, found)
            print("\n".join(lines(wanted, found)), flush=True)
    put(docs, "\n".join(rows))
    return 0


def _case(wanted: Wanted, model: Path, folder: Path, device: str) -> Case:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    most = wanted.context - 100  # the template's own tokens
    file = write(folder / "rows.jsonl", long_rows(wanted.batch * wanted.steps, most // 2, most, tokenizer))
    return Case(
        str(model), file, "sft", wanted.tuning, wanted.batch, wanted.micro, wanted.steps, device,
    )  # fmt: skip


if __name__ == "__main__":
    count, named = asked_for(PAIRS, [one.name for one in CASES])
    raise SystemExit(run([one for one in CASES if one.name in named], count, "cuda", DOCS))
