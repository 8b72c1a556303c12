"""What large models would take on eight and on 64 GPUs, worked out by the plan: a section of docs/scale.md.

`python -m studio.models.plan.paper` writes it, `--check` only compares. Nothing is measured here, and no GPU is asked.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.device.speed import ATTENTION, LINEAR
from studio.models.inspect.adapted import adapted
from studio.models.inspect.known_shapes import KNOWN, KnownModel, shape_of
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import USABLE, Lengths
from studio.models.plan.making import Plan, make_plan
from studio.models.plan.memory import PARTS
from studio.models.plan.spread import ZERO
from studio.tunings import FULL, LORA, QLORA, title_of

TOKENS = 100_000_000
LENGTH = 4096
PRICE = 3.0  # US dollars for an hour of one GPU
# NVIDIA's data sheet of the H100 SXM: memory, dense bfloat16, NVLink in both directions together.
MEMORY, TFLOPS, NVLINK = 80 * 10**9, 989, 900e9
# Between machines: one 400 Gbit/s adapter a GPU, as in NVIDIA's DGX H100.
NETWORK, IN_MACHINE = 400e9 / 8, 8
H100 = DeviceInfo("cuda", "H100", 8, MEMORY, MEMORY, 0, {"bfloat16": TFLOPS * 1e3}, bf16_fast=True, capability=(9, 0))

EIGHT = next(model for model in KNOWN if model.name == "llama3.1-8b-instruct")
SEVENTY = KnownModel(
    "llama3.1-70b", "meta-llama/Llama-3.1-70B", 70_553_706_496,
    {
        **EIGHT.config, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
)  # fmt: skip

_SAVED = {"checkpointing": "recomputed", "offloading": "recomputed, offloaded"}
_PAGE = Path(__file__).resolve().parents[3] / "docs" / "scale.md"
_HEADING = "## On paper"
_INTRO = """\
Made by `python -m studio.models.plan.paper` from the memory plan; do not edit. **Nothing here was measured**: no test
of the studio has seen a GPU. The shapes are the published figures of Llama 3.1 8B and 70B; rows have {length:,} tokens,
half of them supervised, products are in bfloat16, and AdamW keeps 32-bit states. 64 GPUs are eight machines.

- GPU: NVIDIA H100 SXM as in its data sheet, 80 GB (10⁹ bytes), {tflops} TFLOP/s dense bfloat16, 3.35 TB/s of memory
  bandwidth, NVLink 900 GB/s (450 each way). Between machines 400 Gbit/s a GPU, as in NVIDIA's DGX H100.
- Speed: linear layers are taken to reach {linear:.0f} % of that peak and attention {attention:.0f} %. This is an
  assumption: Meta reports 38 to 43 % of the peak for Llama 3 405B on H100s (arXiv:2407.21783, table 4), with kernels
  and a parallelism of its own.
- What is sent is taken to overlap what is computed, so that the slower of the two counts; "sent" is its time as a
  share of computing. FSDP2 gathers all weights twice and adds up all gradients for each micro-batch, DDP adds them up
  once an update; 8 GPUs have batches of {small} rows, 64 of {large}.
- Price: {price:.2f} US dollars an hour and GPU. It is an assumption; hours × GPUs × your own price is yours.

Memory is that of each GPU in 10⁹ bytes, of which a plan may fill {usable:.0f} %.

"""
_LIMITS = """
What does not fit, and the option with which it does (all by the same plan):

"""


@dataclass(frozen=True)
class Case:
    """A run on paper.

    Attributes:
        model, tuning: what is trained.
        gpus: how many compute it.
        training: options of the section `training`.
        length: tokens of every row.
    """

    model: KnownModel
    tuning: str
    gpus: int
    training: dict[str, Any] = field(default_factory=dict)
    length: int = LENGTH

    @property
    def shape(self) -> ModelShape:
        """The model's."""
        return shape_of(self.model)

    @property
    def config(self) -> RunConfig:
        """The run as a config."""
        return RunConfig(
            data={"max_length": self.length}, tuning={"name": self.tuning},
            training={"epochs": 1, "batch_size": batch_of(self.gpus), "devices": str(self.gpus), **self.training},
        )  # fmt: skip

    def plan(self) -> Plan:
        """What the plan says of it."""
        rows = round(TOKENS / self.length)
        lengths = Lengths(rows, rows * self.length, self.length, rows * self.length // 2)
        return make_plan(self.config, self.shape, lengths, H100)

    def name(self) -> str:
        """In a few words."""
        title = "full" if self.tuning == FULL.name else title_of(self.tuning)
        return f"{self.model.title.split('-')[2]} {title}"


# The runs of the first table.
RUNS = (
    Case(EIGHT, LORA.name, 8),
    Case(EIGHT, FULL.name, 8, {"parallel": "fsdp2"}),
    Case(SEVENTY, QLORA.name, 64),
    Case(SEVENTY, FULL.name, 64, {"parallel": "zero3"}),
)
# What does not fit, and what is changed.
LIMITS: tuple[tuple[Case, dict[str, Any], str], ...] = (
    (Case(EIGHT, FULL.name, 8, {"parallel": "ddp"}), {"training": {"parallel": "fsdp2"}}, "`training.parallel: fsdp2`"),
    (Case(SEVENTY, LORA.name, 64, {"parallel": "ddp"}), {"tuning": QLORA.name}, "`tuning.name: qlora`"),
    (
        Case(SEVENTY, LORA.name, 64, {"parallel": "ddp"}), {"training": {"parallel": "fsdp2"}},
        "`training.parallel: fsdp2`",
    ),
    (Case(SEVENTY, FULL.name, 64, {"parallel": "zero1"}), {"training": {"parallel": "zero3"}}, "`zero3`: weights too"),
    (Case(SEVENTY, FULL.name, 64, {"parallel": "zero1"}), {"training": {"parallel": "fsdp2"}}, "`fsdp2`: all of it"),
    (Case(SEVENTY, FULL.name, 8, {"parallel": "zero3"}), {"gpus": 64}, "64 GPUs instead of 8"),
)  # fmt: skip


def batch_of(gpus: int) -> int:
    """Rows of an update: eight a GPU in one machine, four in several."""
    return gpus * (8 if gpus <= IN_MACHINE else 4)


def sent_bytes(case: Case, plan: Plan) -> float:
    """Bytes that a GPU sends for one update (and receives as many): what rings of GPUs pass on.

    Args:
        case: the run.
        plan: of it.
    """
    found = adapted(case.shape, case.config.tuning)
    weights, trained = case.shape.parameters, plan.trainable
    each = 2 if plan.autocast else 4
    others = (case.gpus - 1) / case.gpus
    if plan.parallel == "ddp":
        return 2 * 4 * trained * others
    reduced = each if plan.parallel in ZERO else 4
    held = each * (weights if found is None else weights + trained)
    if plan.parallel == "fsdp2" and found is None and plan.autocast:
        held += 2 * case.shape.vocab * case.shape.hidden  # embeddings are gathered in float32
    if plan.parallel in ("zero1", "zero2"):  # gradients are added up, and what each has updated is gathered
        return (reduced * (plan.accumulation if plan.parallel == "zero2" else 1) + each) * trained * others
    return plan.accumulation * (2 * held + reduced * trained) * others


def times(case: Case, plan: Plan) -> tuple[float, float]:
    """Return (seconds of computing, seconds of sending) of the whole run."""
    way = NVLINK / 2 if case.gpus <= IN_MACHINE else NETWORK
    return plan.seconds or math.nan, plan.steps * sent_bytes(case, plan) / way


def memory_table() -> str:
    """What each GPU holds in the runs that fit, part by part."""
    heads = [
        "run", "GPUs", "shared by", "weights", "gathered block", "gradients", "communication buffers", *PARTS[2:],
        "sum", "rows at a time",
    ]  # fmt: skip
    lines = [_row(heads), _rule(heads)]
    for case in RUNS:
        plan = case.plan()
        weights, gradients, *others = (plan.memory[part] for part in PARTS)
        parts = [weights - plan.gathered, plan.gathered, gradients - plan.buffers, plan.buffers, *others]
        lines.append(_row([
            case.name(), str(case.gpus), plan.parallel, *map(_gigabytes, [*parts, plan.total_bytes]),
            f"{plan.micro_batch}{f', {_SAVED[plan.saving]}' if plan.saving else ''}",
        ]))  # fmt: skip
    return "\n".join(lines) + "\n"


def speed_table() -> str:
    """Speed and price of the same runs."""
    heads = ["run", "GPUs", "rows of an update", "sent", "tokens/s", f"hours for {TOKENS // 10**6} M tokens", "US $"]
    lines = [_row(heads), _rule(heads)]
    for case in RUNS:
        plan = case.plan()
        computing, sending = times(case, plan)
        hours = max(computing, sending) / 3600
        lines.append(_row([
            case.name(), str(case.gpus), str(batch_of(case.gpus)), f"{100 * sending / computing:.0f} %",
            f"{_digits(plan.tokens / hours / 3600):,}", f"{hours:.2g}", f"{_digits(hours * case.gpus * PRICE):,}",
        ]))  # fmt: skip
    return "\n".join(lines) + "\n"


def limits_table() -> str:
    """What does not fit beside what does."""
    heads = ["run", "GPUs", "shared by", "tokens of a row", "needs", "with", "needs then"]
    lines = [_row(heads), _rule(heads)]
    for case, change, words in LIMITS:
        changed = replace(case, **change)
        before, after = case.plan(), changed.plan()
        lines.append(_row([
            case.name(), str(case.gpus), before.parallel, f"{case.length:,}", _fitting(before), words, _fitting(after)
        ]))  # fmt: skip
    return "\n".join(lines) + "\n"


def section() -> str:
    """The text of the section, with its heading."""
    intro = _INTRO.format(
        length=LENGTH, tflops=TFLOPS, linear=100 * LINEAR["cuda", True], attention=100 * ATTENTION["cuda", True],
        price=PRICE, small=batch_of(8), large=batch_of(64), usable=100 * USABLE,
    )  # fmt: skip
    return f"{_HEADING}\n\n{intro}{memory_table()}\n{speed_table()}{_LIMITS}{limits_table()}"


def with_section(page: str, text: str) -> str:
    """Put the section in the place of the older one; at the end where there is none.

    Args:
        page: the whole page.
        text: the section, with its heading.
    """
    found = re.search(rf"^{_HEADING}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        return f"{page.rstrip()}\n\n{text}"
    rest = page[found.end() :]
    return page[: found.start()] + text + (f"\n{rest}" if rest else "")


def main() -> int:
    """Write or check the section; returns 1 when `--check` finds it stale."""
    page = _PAGE.read_text(encoding="utf-8")
    wanted = with_section(page, section())
    if "--check" in sys.argv:
        if wanted != page:
            print(f"{_PAGE.name} is stale: run 'python -m studio.models.plan.paper'", file=sys.stderr)
        return int(wanted != page)
    _PAGE.write_text(wanted, encoding="utf-8")
    return 0


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(heads: list[str]) -> str:
    return f"|{'---|' * len(heads)}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _fitting(plan: Plan) -> str:
    return f"{_gigabytes(plan.total_bytes)}{'' if plan.fits else ', does not fit'}"


def _digits(number: float) -> int:
    """Two digits of a number, since the plan knows no more."""
    scale = int(10 ** max(0, math.floor(math.log10(number)) - 1))
    return round(number / scale) * scale


if __name__ == "__main__":
    raise SystemExit(main())
