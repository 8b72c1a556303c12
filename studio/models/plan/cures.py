"""What would lower the memory of a run, the least costly first: as sentences, and as changes that a button applies.

The plan keeps them beside its memory, so that whoever sees a run end with full memory needs neither model nor torch
to name the first change that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.adapted import Adapted
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import USABLE
from studio.models.plan.memory import Load, estimate
from studio.tunings import LORA, QLORA, TuningConfig

# A run whose memory was full although the plan said that it fits needs clearly less, not a few bytes less.
CLEARLY_LESS = 0.8
SHORTEST = 256
# An 8-bit optimizer is named where it saves at least 2 %: beside a small adapter it saves next to nothing.
WORTHWHILE = 0.98
THIRTY_TWO_BIT = ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit")
_LENGTH = "data.max_length"


@dataclass(frozen=True)
class Cure:
    """Options to change together, by dotted name, and the expected peak (bytes) with them."""

    change: dict[str, Any]
    bytes: int


def cures(config: RunConfig, shape: ModelShape, load: Load) -> list[Cure]:
    """Return what lowers the memory: micro-batch, recomputing, offloading, 8-bit states, an adapter, four bits, shorter
    examples.

    Examples are halved as often as it goes. After those that change one thing come the same, one added to the other.
    None is returned that needs more than the run does as it is.

    Args:
        config: the run.
        shape: of the model.
        load: of the run as it is planned.
    """
    total = _total(shape, load)
    steps = list(_steps(config, shape, load))
    single = [_applied(shape, load, [step]) for step in steps]
    joined = [_applied(shape, load, steps[: count + 1]) for count in range(1, len(steps))]
    return [cure for cure in (*single, *joined) if cure.bytes < total]


def first_fitting(found: list[Cure], total: int, available: int) -> Cure | None:
    """Return the least costly change with which a run that needs `total` fits into `available` bytes.

    Args:
        found: from `cures`, the least costly first.
        total: bytes the run needs as it is.
        available: free bytes; a safety margin is left.
    """
    limit = min(USABLE * available, CLEARLY_LESS * total)
    return next((cure for cure in found if cure.bytes <= limit), None)


def advice(found: list[Cure], memory: dict[str, int], device: DeviceInfo) -> list[str]:
    """Name the settings that would make it fit, each with what it would need then; the least costly first.

    Args:
        found: from `cures`, the least costly first.
        memory: bytes of the plan by part; `weights` is the model's.
        device: with its free memory in bytes.
    """
    usable = USABLE * device.available_bytes
    alone = [cure for cure in found if len(_main(cure)) == 1]
    shorter = [cure for cure in alone if _LENGTH in cure.change]
    if shorter:  # one sentence for all lengths: the first that fits, else the shortest
        best = next((cure for cure in shorter if cure.bytes <= usable), shorter[-1])
        alone = [cure for cure in alone if cure not in shorter or cure is best]
    sentences = []
    for cure in alone:
        verdict = "which fits" if cure.bytes <= usable else "which is not enough on its own"
        sentences.append(f"{said(cure.change)}: it then needs {cure.bytes / 1e9:.1f} GB, {verdict}.")
    together = next((cure for cure in found if cure.bytes <= usable), None)
    if together is not None and together not in alone:
        sentences.append(f"{said(together.change)}: it then needs {together.bytes / 1e9:.1f} GB, which fits.")
    if together is None:
        sentences.append(
            f"Choose a smaller model in model.path: the weights of this one take {memory['weights'] / 1e9:.1f} GB."
        )
    return sentences


def said(change: dict[str, Any]) -> str:
    """Say a change in words: "Set training.micro_batch_size to 1 and data.max_length to 512"."""
    parts = [f"{path} to {_word(value)}" for path, value in change.items()]
    return f"Set {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}"


def _word(value: Any) -> str:
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


Step = tuple[dict[str, Any], Callable[[Load], Load]]


def _steps(config: RunConfig, shape: ModelShape, load: Load) -> Iterable[Step]:
    """What can be changed: options, and what the load is then."""
    adapter, quantises = load.adapter, find_spec("bitsandbytes") is not None
    least = config.method.kind.least_rows(config.method)
    if load.tokens > least * load.cost.sequences * load.length:
        yield {"training.micro_batch_size": least}, lambda one: _fewer(one, least)
    if not load.checkpointing:
        yield {"training.activation_checkpointing": True}, lambda one: replace(one, checkpointing=True)
    if load.cuda and not load.offloads and config.training.activation_checkpointing is not False:
        yield {"training.activation_offloading": True}, lambda one: replace(one, checkpointing=True, offloads=True)
    if quantises and load.optimizer in THIRTY_TWO_BIT:
        eight: Step = {"training.optimizer": "adamw_8bit"}, lambda one: replace(one, optimizer="adamw_8bit")
        if _total(shape, eight[1](load)) < WORTHWHILE * _total(shape, load):
            yield eight
    if adapter is not None and adapter.whole and not config.tuning.adapter:
        yield {"tuning.modules_to_save": None}, _without_whole
    if adapter is None:
        yield {"tuning.name": LORA.name}, lambda one: _with_adapter(shape, one)
    elif load.dtype_bytes == 4 and not load.weight_bits:
        yield {"model.dtype": "bfloat16"}, lambda one: replace(one, dtype_bytes=2, autocast=True)
    dora = adapter is not None and adapter.dora
    if not load.weight_bits and quantises and not (dora and config.tuning.bits == "8"):
        change = {"tuning.name": QLORA.name, "tuning.dora": True} if dora else {"tuning.name": QLORA.name}
        yield (
            change,
            lambda one: replace(
                _without_whole(_with_adapter(shape, one)), weight_bits=QLORA.weight_bits(config.tuning)
            ),
        )
    length = load.length
    while length > SHORTEST and not load.written:
        length = max(SHORTEST, length // 2)
        yield _shorter_rows(config, length), partial(_shortened, length=length)


def _total(shape: ModelShape, load: Load) -> int:
    return sum(estimate(shape, load).values())


def _fewer(load: Load, micro: int) -> Load:
    smaller = load.resized(micro, load.length)
    share = max(1, load.supervised * smaller.tokens // load.tokens)
    return replace(smaller, supervised=share, accumulates=True, token_limit=0)


def _with_adapter(shape: ModelShape, load: Load) -> Load:
    """With a new adapter where every weight is trained; its reference is then the model without it."""
    if load.adapter is not None:
        return load
    rank = TuningConfig().rank
    adapter = Adapted(tuple((layer, rank) for layer in shape.targets("all-linear")), rank)
    return replace(load, adapter=adapter, dtype_bytes=2 if load.autocast else 4)


def _without_whole(load: Load) -> Load:
    return load if load.adapter is None else replace(load, adapter=replace(load.adapter, whole=()))


def _shorter_rows(config: RunConfig, length: int) -> dict[str, Any]:
    change: dict[str, Any] = {_LENGTH: length}
    if config.data.truncation == "error":  # which would refuse what the button is to start
        change["data.truncation"] = "cut"
    return change


def _shortened(load: Load, length: int) -> Load:
    """With rows cut to `length`; as large a share of them counts as before."""
    supervised = max(1, load.supervised * length // load.length)
    shorter = load.resized(max(load.batch, load.micro_batch), length)
    return replace(shorter, supervised=supervised, validation=min(load.validation, length))


def _applied(shape: ModelShape, load: Load, steps: list[Step]) -> Cure:
    change: dict[str, Any] = {}
    for options, effect in steps:
        change |= options
        load = effect(load)
    return Cure(change, _total(shape, load))


def _main(cure: Cure) -> set[str]:
    """The options of a change but those that only go with another one."""
    return set(cure.change) - {"data.truncation", "tuning.dora"}
