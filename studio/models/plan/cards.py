"""What fits on which graphics card, worked out by the plan: docs/models-memory.md, and a line in each model's preset.

`python -m studio.models.plan.cards` writes both, `--check` only compares. Rows are taken to be as long as the preset's
`data.max_length`, all of them, half of their tokens supervised: the worst case of a run. Nothing is measured here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from studio.config import RunConfig
from studio.config.load import load_run
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.known_shapes import KNOWN, KnownModel, shape_of
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import USABLE, Lengths
from studio.models.plan.making import Plan, make_plan
from studio.settings import PRESETS
from studio.tunings import FULL, LORA, QLORA, TUNINGS, title_of

CARDS = (8, 12, 16, 24, 48, 80)  # GB as they are sold: 2**30 bytes each
TRIED = (FULL, LORA, QLORA)  # The one that changes most comes first.
SHORTER = (2, 4)  # Rows of a half and a quarter are tried where the whole length does not fit.
ROWS = 1000
# A score of eager attention keeps tanh and probability in 2 bytes and softmax in 4 (transformers' Gemma 2).
SCORE_BYTES = 8
MEMORY = "# Memory, "

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "models-memory.md"
_INTRO = """\
# Memory of well-known models

Made by `python -m studio.models.plan.cards` from the memory plan (docs/memory.md); do not edit. Nothing here was
measured on a card. A number is the largest micro-batch, up to the preset's batch size, with which the plan fits into
{usable:.0%} of the card's memory; **c** means with activation checkpointing, **o** with offloading, too, – that
not even one row fits. The plan does so only where it must, so a larger card may have the smaller number. The rows
have the preset's `data.max_length` tokens, all of them, which is the worst case: shorter rows need less. "Least" is
what the run needs with one row at a time, checkpointing and offloading, in 10⁹ bytes; for the cards, 1 GB is 2³⁰
bytes. Adapters have rank {rank} and go on the layers that the preset names; AdamW with 32-bit states, matmuls in
bfloat16.

The experts of MoE models stay in 16 bits under QLoRA (Mixtral, DeepSeek): bitsandbytes quantizes linear layers, and
transformers 5 stores the experts of a block as one parameter. DeepSeek-V3 is published in 8 bits, which QLoRA refuses.
Gemma 2 needs eager attention, whose scores are counted here on top of the plan: 8 bytes a head and pair of tokens.

"""


@dataclass(frozen=True)
class Fit:
    """How a model is trained on a card: the most that fits."""

    tuning: str
    length: int
    micro_batch: int
    saving: str

    def words(self, usual: int) -> str:
        """In words; the length is said where it is not the usual one."""
        title = title_of(self.tuning) if TUNINGS[self.tuning].adapter else "full fine-tuning"
        length = f", length {self.length:,}" if self.length != usual else ""
        return f"{title}{length}, micro-batch {self.micro_batch}{f', {self.saving}' if self.saving else ''}"


def card_of(gigabytes: int) -> DeviceInfo:
    """A graphics card of that many GB of 2³⁰ bytes, all of them free."""
    size = gigabytes * 2**30
    return DeviceInfo("cuda", f"a card of {gigabytes} GB", 8, size, size, 0, bf16_fast=True)


def planned(config: RunConfig, shape: ModelShape, tuning: str, device: DeviceInfo, length: int) -> Plan:
    """The plan of a preset on a device, with another tuning and length.

    Args:
        config: of the preset.
        shape: of its model.
        tuning: name of the tuning to plan with.
        device: with its free memory in bytes.
        length: tokens of every row.
    """
    changed = config.model_copy(update={"tuning": config.tuning.model_copy(update={"name": tuning})})
    lengths = Lengths(ROWS, ROWS * length, length, ROWS * length // 2)
    return make_plan(changed, with_scores(shape, config, length), lengths, device)


def with_scores(shape: ModelShape, config: RunConfig, length: int) -> ModelShape:
    """The shape with eager attention's scores, which the plan does not count, as a wider MLP (6 bytes a column).

    Args:
        shape: of the model.
        config: of the preset; anything but eager attention leaves the shape as it is.
        length: tokens of every row.
    """
    if config.model.attention != "eager":
        return shape
    return replace(shape, intermediate=shape.intermediate + SCORE_BYTES * shape.heads * length // 6)


def best_fit(config: RunConfig, shape: ModelShape, device: DeviceInfo) -> Fit | None:
    """The tuning that changes most and fits at the preset's length; else an adapter on shorter rows; else None.

    Args:
        config: of the preset.
        shape: of its model.
        device: with its free memory in bytes.
    """
    length = config.data.limit
    tries = [(tuning.name, length) for tuning in TRIED]
    tries += [(tuning.name, length // part) for part in SHORTER for tuning in TRIED if tuning.adapter]
    for tuning, tokens in tries:
        plan = planned(config, shape, tuning, device, tokens)
        if plan.fits:
            return Fit(tuning, tokens, plan.micro_batch, plan.saving)
    return None


def memory_line(config: RunConfig, shape: ModelShape) -> str:
    """The comment that a preset carries."""
    usual = config.data.limit
    begin = f"{MEMORY}planned for length {usual:,}: "
    fits = [(card, best_fit(config, shape, card_of(card))) for card in CARDS]
    if all(fit is None for _, fit in fits):
        title, least = title_of(config.tuning.name), least_bytes(config, shape, config.tuning.name)
        return f"{begin}no card of up to {CARDS[-1]} GB holds it; {title} needs {least / 1e9:,.0f} GB."
    parts = []
    for fit, group in groupby(fits, key=lambda pair: pair[1]):
        cards = [str(card) for card, _ in group]
        parts.append(f"{_listed(cards)} GB: {fit.words(usual) if fit else 'does not fit'}")
    return f"{begin}{'; '.join(parts)}."


def least_bytes(config: RunConfig, shape: ModelShape, tuning: str) -> int:
    """What the run needs with one row at a time, with checkpointing and offloading.

    Args:
        config: of the preset.
        shape: of its model.
        tuning: name of the tuning to plan with.
    """
    training = config.training.model_copy(update={"micro_batch_size": 1, "activation_offloading": True})
    small = config.model_copy(update={"training": training})
    return planned(small, shape, tuning, card_of(CARDS[-1]), config.data.limit).total_bytes


def page(presets: Iterable[tuple[KnownModel, RunConfig, ModelShape]]) -> str:
    """The text of docs/models-memory.md."""
    rank = RunConfig().tuning.rank
    heads = ["model", "parameters", "tokens", "batch", "tuning", "least GB", *(f"{card} GB" for card in CARDS)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for model, config, shape in presets:
        for tuning in (one.name for one in TRIED):
            cells = [
                model.title, _billions(shape.parameters), f"{config.data.limit:,}",
                str(config.training.batch_size), title_of(tuning), f"{least_bytes(config, shape, tuning) / 1e9:,.1f}",
            ]  # fmt: skip
            plans = [planned(config, shape, tuning, card_of(card), config.data.limit) for card in CARDS]
            cells += [f"{plan.micro_batch} {plan.saving[:1]}".rstrip() if plan.fits else "–" for plan in plans]
            lines.append(f"| {' | '.join(cells)} |")
    return _INTRO.format(usable=USABLE, rank=rank) + "\n".join(lines) + "\n"


def preset_file(model: KnownModel) -> Path:
    """Where the model's preset lies."""
    return PRESETS / "models" / f"{model.name}.yaml"


def with_memory_line(text: str, line: str) -> str:
    """Put the line second, in place of an older one."""
    lines = text.splitlines()
    rest = lines[2:] if len(lines) > 1 and lines[1].startswith(MEMORY) else lines[1:]
    return "\n".join([*lines[:1], line, *rest]) + "\n"


def main() -> int:
    """Write or check page and presets; returns 1 when `--check` finds one stale."""
    presets = [(model, load_run(preset_file(model)), shape_of(model)) for model in KNOWN]
    wanted = {_PAGE: page(presets)}
    for model, config, shape in presets:
        file = preset_file(model)
        wanted[file] = with_memory_line(file.read_text(encoding="utf-8"), memory_line(config, shape))
    stale = [
        file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text
    ]  # fmt: skip
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.name} is stale: run 'python -m studio.models.plan.cards'", file=sys.stderr)
        return 1 if stale else 0
    for file in stale:
        file.write_text(wanted[file], encoding="utf-8")
    return 0


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _billions(count: int) -> str:
    return f"{count / 1e9:.3g} B" if count >= 0.9995e9 else f"{count / 1e6:.3g} M"


if __name__ == "__main__":
    raise SystemExit(main())
