"""What would lower the memory of a run, the least costly first: as sentences, and as changes that a button applies.

The plan keeps them beside its memory, so that whoever sees a run end with full memory needs neither model nor torch
to name the first change that fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from studio.config import RunConfig
from studio.config.tuning import TuningConfig
from studio.models.device import DeviceInfo
from studio.models.fit import USABLE
from studio.models.memory import Load, estimate
from studio.models.shape import ModelShape

# A run whose memory was full although the plan said that it fits needs clearly less, not a few bytes less.
CLEARLY_LESS = 0.8
SHORTEST = 256


@dataclass(frozen=True)
class Cure:
    """Options to change together, by dotted name, and the expected peak (bytes) with them."""

    change: dict[str, Any]
    bytes: int


def cures(config: RunConfig, shape: ModelShape, load: Load, qlora_bits: float) -> list[Cure]:
    """Return what lowers the memory: micro-batch, recomputing, an adapter, four bits, shorter examples.

    After those that change one thing come the same, one added to the other. None is returned that needs more than the
    run does as it is.

    Args:
        config: the run.
        shape: of the model.
        load: of the run as it is planned.
        qlora_bits: bits of a weight with its share of the scales if it were quantised.
    """
    total = sum(estimate(shape, load).values())
    steps = list(_steps(config, load, qlora_bits))
    single = [_applied(shape, load, [step]) for step in steps]
    joined = [_applied(shape, load, steps[: count + 1]) for count in range(1, len(steps))]
    return [cure for cure in (*single, *joined) if cure.bytes < total]


def first_fitting(found: list[Cure], total: int, available: int) -> Cure | None:
    """Return the least costly change with which a run that needs `total` fits into `available` bytes."""
    limit = min(USABLE * available, CLEARLY_LESS * total)
    return next((cure for cure in found if cure.bytes <= limit), None)


def advice(found: list[Cure], shape: ModelShape, memory: dict[str, int], load: Load, device: DeviceInfo) -> list[str]:
    """Name the settings that would make it fit, each with what it would need then; the least costly first."""
    usable = USABLE * device.available_bytes
    sentences = []
    alone = [cure for cure in found if len(_main(cure)) == 1]
    for cure in alone:
        verdict = "which fits" if cure.bytes <= usable else "which alone is not enough"
        sentences.append(f"{said(cure.change)}: it then needs {cure.bytes / 1e9:.1f} GB, {verdict}.")
    together = next((cure for cure in found if cure.bytes <= usable), None)
    if together is not None and together not in alone:
        sentences.append(f"{said(together.change)}: it then needs {together.bytes / 1e9:.1f} GB, which fits.")
    smallest = replace(load, micro_batch=1, length=SHORTEST, supervised=128, checkpointing=True)
    if sum(estimate(shape, smallest).values()) > usable or not sentences:
        sentences.append(
            f"Choose a smaller model in model.path: the weights of this one take {memory['weights'] / 1e9:.1f} GB."
        )
    return sentences


def said(change: dict[str, Any]) -> str:
    """Say a change in words: "Set training.micro_batch_size to 1 and data.max_length to 512"."""
    parts = [f"{path} to {str(value).lower() if isinstance(value, bool) else value}" for path, value in change.items()]
    return f"Set {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}"


Step = tuple[dict[str, Any], dict[str, Any]]


def _steps(config: RunConfig, load: Load, qlora_bits: float) -> Iterable[Step]:
    """What can be changed: options, and what they change of the load."""
    least = 2 if config.method.name == "kto" and config.method.kto_loss == "kto" else 1
    if load.micro_batch > least:
        share = max(1, load.supervised * least // load.micro_batch)
        yield {"training.micro_batch_size": least}, {"micro_batch": least, "supervised": share, "accumulates": True}
    if not load.checkpointing:
        yield {"training.activation_checkpointing": True}, {"checkpointing": True}
    if load.adapter is None:
        yield {"tuning.name": "lora"}, {"adapter": True}
    elif load.dtype_bytes == 4 and not load.weight_bits:
        yield {"model.dtype": "bfloat16"}, {"dtype_bytes": 2, "autocast": True}
    if not load.weight_bits and find_spec("bitsandbytes") is not None and not load.dora:
        yield {"tuning.name": "qlora"}, {"adapter": True, "weight_bits": qlora_bits}
    if load.length > SHORTEST and not load.written:
        half = load.length // 2
        short: dict[str, Any] = {"data.max_length": half}
        if config.data.truncation == "error":  # which would refuse what the button is to start
            short["data.truncation"] = "cut"
        yield short, {"length": half}


def _applied(shape: ModelShape, load: Load, steps: list[Step]) -> Cure:
    change: dict[str, Any] = {}
    for options, effects in steps:
        change |= options
        effects = dict(effects)
        if effects.pop("adapter", False) and load.adapter is None:
            rank = TuningConfig().rank
            load = replace(load, adapter=shape.linears, rank=rank, dtype_bytes=2 if load.autocast else 4)
        load = replace(load, **effects)
    return Cure(change, sum(estimate(shape, load).values()))


def _main(cure: Cure) -> set[str]:
    return set(cure.change) - {"data.truncation"}
