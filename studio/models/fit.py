"""How a run is fitted into the free memory: micro-batch and checkpointing. What to change is said by `cures`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from studio.config import RunConfig
from studio.models.device import DeviceInfo
from studio.models.memory import PARTS, Load, estimate
from studio.models.shape import ModelShape

USABLE = 0.9  # Share of the free memory that a plan may fill: others' needs change while a run goes on.
GIVEN = "your setting"


@dataclass(frozen=True)
class Lengths:
    """What the plan needs to know of the tokenized training data.

    Attributes:
        count: training examples.
        total_tokens: tokens of all of them.
        max: tokens of the longest.
        supervised_tokens: tokens of all of them that the loss counts.
        validation_count: examples kept for validation.
        validation_max: tokens of the longest of them; 0 where it is not known.
        good: answers that are rated good, None where rows are not rated.
        answered: prompts with an answer to compare with, None where rows are not prompts.
    """

    count: int
    total_tokens: int
    max: int
    supervised_tokens: int
    validation_count: int = 0
    good: int | None = None
    answered: int | None = None
    validation_max: int = 0


@dataclass(frozen=True)
class Choice:
    """A resolved option: the value, why it is this one, and where that comes from."""

    value: Any
    reason: str
    source: str


def fit(
    config: RunConfig,
    shape: ModelShape,
    lengths: Lengths,
    device: DeviceInfo,
    load: Load,
    choices: dict[str, Choice],
) -> tuple[Load, dict[str, int]]:
    """Choose micro-batch and checkpointing: first without recomputing, the largest micro-batch that fits."""
    training = config.training
    asked_micro, asked_saving = training.micro_batch_size, training.activation_checkpointing
    # More examples at a time than there are would only make the plan larger than the run.
    sizes = [asked_micro] if asked_micro != "auto" else _divisors(training.batch_size, lengths.count)
    if asked_micro == "auto" and config.method.name == "kto" and config.method.kto_loss == "kto":
        sizes = [size for size in sizes if size > 1] or sizes  # its KL estimate needs another answer in the batch
    ways = [asked_saving] if asked_saving != "auto" else [False, True]
    tried: list[tuple[Load, dict[str, int]]] = []
    for checkpointing in ways:
        for micro in sizes:
            candidate = replace(
                load,
                micro_batch=int(micro),
                accumulates=int(micro) < training.batch_size,
                checkpointing=bool(checkpointing),
                supervised=math.ceil(micro * (lengths.supervised_tokens / lengths.count + load.written)),
            )
            tried.append((candidate, estimate(shape, candidate)))
    # Nothing fits: show the smallest, so that the advice starts from it.
    best = next((pair for pair in tried if fits(pair[1], device)), min(tried, key=lambda pair: sum(pair[1].values())))
    chosen, enough = best[0], fits(best[1], device)
    limit = f"{USABLE:.0%} of the {device.available_bytes / 1e9:.1f} GB that are free"
    plan_source = "memory plan"
    if asked_micro != "auto":
        choices["training.micro_batch_size"] = Choice(chosen.micro_batch, "as set", GIVEN)
    else:
        whole = chosen.micro_batch == sizes[0]
        reason = "the whole batch fits" if whole else f"the largest divisor of {training.batch_size} within {limit}"
        reason = reason if enough else f"even the smallest does not fit in {limit}"
        choices["training.micro_batch_size"] = Choice(chosen.micro_batch, reason, plan_source)
    if asked_saving != "auto":
        choice = Choice(chosen.checkpointing, "as set", GIVEN)
    elif chosen.checkpointing:
        choice = Choice(True, f"without it not even one example fits in {limit}", plan_source)
        if not enough:
            choice = Choice(True, "it saves the most memory, though not enough", plan_source)
    else:
        choice = Choice(False, "activations fit, so nothing needs to be computed twice", plan_source)
    choices["training.activation_checkpointing"] = choice
    return best


def fits(memory: dict[str, int], device: DeviceInfo) -> bool:
    """Whether a run of these parts may fill that much of the free memory."""
    return sum(memory[part] for part in PARTS) <= USABLE * device.available_bytes


def _divisors(batch: int, count: int) -> list[int]:
    """Divisors of the batch size, the largest first, none larger than the number of examples."""
    found = [size for size in range(batch, 0, -1) if batch % size == 0]
    return [size for size in found if size <= count] or [1]
