"""How a run is fitted into the free memory: micro-batch, checkpointing, offloading. What to change is said by `cures`.

`auto` is what is fast, not what just fits: on a processor about 2,000 tokens at a time are as fast as any number, and
a run takes at most half of the free memory wherever it can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.device.speed import padded_length
from studio.models.inspect.shape import ModelShape
from studio.models.plan.batches import Batching, by_length, computed_once, dealt, look
from studio.models.plan.fused import may_leave_out_padding
from studio.models.plan.memory import PARTS, Load, estimate, offloaded_bytes

USABLE = 0.9  # Share of the free memory that a plan may fill: others' needs change while a run goes on.
MODEST = 0.5  # Share that `auto` keeps to where the run can: others want to work beside it.
GIVEN = "your setting"
# More tokens at a time are taken to bring no speed. On two cores 4 rows like Alpaca's did 265 tokens/s and 40 did 221;
# 2,048 itself was not compared yet (docs/benchmarks.md), nor anything on a GPU: above, half of its memory must hold it.
ENOUGH = {"cpu": 2048}
ENOUGH_GPU = 32768
Way = tuple[bool, bool]  # whether blocks are computed twice, and what they keep is offloaded
Fitted = tuple[Load, dict[str, int]]  # what decides the memory, and the parts of that


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
        each: tokens of the longest sequence of the first examples, in the order of the first epoch
            (`batches.SEEN_ROWS`); empty if not known.
        sums: tokens of all sequences of each of those; empty if not known.
        repeats: tokens of each of those that repeat a prefix within it (`Unit.repeats`); empty if not known.
        common: tokens that all examples begin with; 0 if not known.
        alone: tokens of the largest example, what repeats in it counted once; 0 if not known.
    """

    count: int
    total_tokens: int
    max: int
    supervised_tokens: int
    validation_count: int = 0
    good: int | None = None
    answered: int | None = None
    validation_max: int = 0
    each: Sequence[int] = field(default=(), repr=False)
    sums: Sequence[int] = field(default=(), repr=False)
    repeats: Sequence[int] = field(default=(), repr=False)
    common: int = 0
    alone: int = 0


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
    begun: Batching | None = None,
) -> Fitted:
    """Choose micro-batch, checkpointing and offloading, and say how long an example may be.

    Of micro-batches within what is fast, the largest within half of the free memory, computed once if that goes; where
    nothing keeps to half of it, the smallest that may run at all.

    Args:
        config: the run.
        shape: of the model.
        lengths: token counts of the rows.
        device: with its free memory in bytes.
        load: of the run but for what is chosen here.
        choices: receives the choices with their reasons.
        begun: micro-batch of a run that resumes; None for a new one.
    """
    training = config.training
    asked_micro = training.micro_batch_size
    sizes = list(_sizes(config, lengths, device, load))
    if asked_micro != "auto":
        sizes = [Batching(asked_micro, padded=not load.unpadded)]
    elif begun is not None:
        sizes = [begun]
    # With a size of one's own everything that is usable may be filled, as that is what was asked for.
    own = asked_micro != "auto" or begun is not None
    loads = [_loaded(config, lengths, load, size, way) for way in _ways(config, load) for size in sizes]
    tried = [(one, estimate(shape, one)) for one in loads]

    def within(pair: Fitted) -> bool:
        wide = own or (device.kind != "cpu" and pair[0].tokens <= ENOUGH_GPU)
        return _total(pair[1]) <= (USABLE if wide else MODEST) * device.available_bytes

    # Nothing keeps to that: the smallest, from which the advice starts where it does not fit either.
    best = next(filter(within, tried), None)
    modest = best is not None
    best = best or min(tried, key=lambda pair: _total(pair[1]))
    largest = any(best is first for first in tried[:: len(sizes)])
    _explain(config, device, best, choices, largest=largest, modest=modest, own=begun is not None)
    _explain_offloading(config, shape, best[0], choices)
    limit, longest = config.data.max_length, Choice(lengths.max, "the longest example", "your data")
    choices["data.max_length"] = longest if limit == "auto" else Choice(limit, "as set", GIVEN)
    return best


def fits(memory: dict[str, int], device: DeviceInfo) -> bool:
    """Whether a run of these parts may fill that much of the free memory."""
    return _total(memory) <= USABLE * device.available_bytes


def enough_tokens(kind: str) -> int:
    """Tokens computed at a time above which more bring no speed."""
    return ENOUGH.get(kind, ENOUGH_GPU)


def grouping(config: RunConfig, device: DeviceInfo) -> dict[str, Any]:
    """How the data worker's `profile` and `batch` are to put rows of like length together; empty where a run does not.

    Args:
        config: the run.
        device: where it computes.
    """
    if not by_length(config):
        return {}
    tokens = enough_tokens(device.kind) if config.training.micro_batch_size == "auto" else 0
    return {"batch": config.training.batch_size, "tokens": tokens, "unpadded": may_leave_out_padding(config, device)}


def _total(memory: dict[str, int]) -> int:
    return sum(memory[part] for part in PARTS)


def _ways(config: RunConfig, load: Load) -> list[Way]:
    """Whether blocks are computed twice and what they keep is offloaded; what costs least comes first."""
    saving, offloading = config.training.activation_checkpointing, config.training.activation_offloading
    ways = [(False, False), (True, False), (True, True)]
    if offloading is True and saving:
        return ways[2:]
    if not offloading or not load.cuda:
        ways.remove((True, True))
    elif config.training.engine == "unsloth":  # whose checkpointing does both
        ways.remove((True, False))
    return [way for way in ways if saving == "auto" or way[0] == saving]


def _sizes(config: RunConfig, lengths: Lengths, device: DeviceInfo, load: Load) -> Iterator[Batching]:
    """Sizes of a micro-batch worth trying, the largest first."""
    sequences, padded = load.cost.sequences, not load.unpadded
    batch, enough = config.training.batch_size, enough_tokens(device.kind)
    divisors = _divisors(batch, lengths.count)
    longest = max(1, lengths.max) * sequences
    if by_length(config):
        if device.kind == "cpu":
            limits = [enough, *(enough >> shift for shift in (1, 2, 3) if enough >> shift > longest)]
        else:
            limits = [size * longest for size in divisors]
        yield from (Batching(batch, limit, padded) for limit in limits)
        yield Batching(1, padded=padded)
        return
    least = config.method.kind.least_rows(config.method)
    divisors = [size for size in divisors if size >= least] or divisors
    for size in divisors:
        tokens = size * sequences * (_usual_length(config, lengths, load, size) + load.written)
        if device.kind != "cpu" or tokens <= enough or size == divisors[-1]:
            yield Batching(size, padded=padded)


def _usual_length(config: RunConfig, lengths: Lengths, load: Load, size: int) -> float:
    """Tokens to which the rows of a micro-batch are usually padded; where there is no padding they are not."""
    mean = lengths.total_tokens / lengths.count / load.cost.sequences
    if config.padding_free or load.unpadded:
        return mean
    if not lengths.each:
        return padded_length(mean, lengths.max, size)
    longest = [max(lengths.each[at : at + size]) for at in range(0, len(lengths.each), size)]
    return sum(longest) / len(longest)


def _loaded(config: RunConfig, lengths: Lengths, load: Load, size: Batching, way: Way) -> Load:
    """What is in memory with micro-batches of that size."""
    load = replace(load, checkpointing=way[0], offloads=way[1])
    batch, sequences = config.training.batch_size, load.cost.sequences
    free = config.padding_free or load.unpadded
    if load.written:  # an answer is as long as it may be, whatever the others are
        supervised = math.ceil(size.rows * (lengths.supervised_tokens / lengths.count + load.written))
        return replace(
            load, micro_batch=size.rows, accumulates=size.rows < batch, supervised=supervised,
            padded=_answered(config, lengths, load, size.rows) if free and lengths.each else 0,
            waste=1.0 if free else 0.0,
        )  # fmt: skip
    size, whole = replace(size, padded=not free), by_length(config) or dealt(config)
    rows = _reached(config, lengths, batch if whole else size.rows)
    once = (rows.repeats, rows.common) if load.shares_prefixes else ()
    seen = look(rows.each, batch if whole else size.rows, size, sequences, rows.sums, *once)
    # The longest row comes some time, where rows are padded together with as many others as go with it.
    beside = min(size.rows, batch, lengths.count) if size.padded and not size.tokens else 1
    most = alone = sequences * rows.max * beside
    if load.shares_prefixes and rows.alone:
        alone = rows.alone
    if not size.padded and len(rows.each) == rows.count:  # it was seen
        most = alone = 0
    padded, scored = max(seen.largest, alone), max(seen.scored, most)
    # In whole numbers of which the batch is made, as the option has it: about so many are computed at a time.
    usual = max(1, round(seen.rows / seen.parts))
    micro = size.rows if not size.tokens else max(one for one in _divisors(batch, lengths.count) if one <= usual)
    share = lengths.supervised_tokens / max(1, lengths.total_tokens)
    return replace(
        load, micro_batch=micro, accumulates=seen.most > 1 if whole else size.rows < batch, padded=padded,
        scored=scored, supervised=math.ceil(share * scored), token_limit=size.tokens,
        waste=seen.padded / max(1, seen.tokens),
    )  # fmt: skip


def _answered(config: RunConfig, lengths: Lengths, load: Load, rows: int) -> int:
    """Tokens of the largest micro-batch of so many prompts with written answers, without padding."""
    each, batch = lengths.each, config.training.batch_size
    answers = config.method.kind.completions(config.method)
    prompts, together = max(1, batch // answers), math.ceil(rows / answers)
    # The longest of an update: micro-batches are made by length, so that answers to a prompt are mostly in one.
    longest = [sorted(each[at : at + prompts], reverse=True)[:together] for at in range(0, len(each), prompts)]
    if load.shares_prefixes:
        # Other prompts begin at the same position in ppo only; TRL's trainers count from where their padding begins.
        common = lengths.common if load.cost.value else 0
        repeats = [computed_once([0] * len(part), common) for part in longest]
        tokens = max(sum(part) - once for part, once in zip(longest, repeats, strict=True))
    else:
        tokens = max(math.ceil(rows * sum(part) / len(part)) for part in longest)
    return tokens + rows * load.written


def _reached(config: RunConfig, lengths: Lengths, together: int) -> Lengths:
    """The rows that a run comes to, as far as their lengths are known.

    Args:
        config: the run.
        lengths: of all rows.
        together: rows out of which micro-batches are made.
    """
    training = config.training
    count = lengths.count
    if training.max_steps is not None:
        count = min(count, training.max_steps * training.batch_size * training.ranks)
    each, sums, repeats = (known[:count] for known in (lengths.each, lengths.sums, lengths.repeats))
    if not each:
        # Not known row by row: every update as many rows as it may have, half of them longer than the mean.
        mean = max(1, round(lengths.total_tokens / lengths.count / config.method.kind.cost.sequences))
        rows, low = min(together, lengths.count), max(1, 2 * mean - lengths.max)
        spread = [low + (lengths.max - low) * i // max(1, rows - 1) for i in range(rows)]
        each = spread if rows > 1 else [lengths.max]
        return replace(lengths, count=count, each=each, sums=(), repeats=(), common=0)
    longest = max(each) if len(each) == count else lengths.max
    return replace(lengths, count=count, each=each, sums=sums, repeats=repeats, max=longest)


def _explain(
    config: RunConfig,
    device: DeviceInfo,
    best: Fitted,
    choices: dict[str, Choice],
    *,
    largest: bool,
    modest: bool,
    own: bool,
) -> None:
    """Say why micro-batch and checkpointing are what they are."""
    load, free, training = best[0], device.available_bytes / 1e9, config.training
    enough, plan_source = fits(best[1], device), "memory plan"
    half, usable = f"half of the {free:.1f} GB that are free", f"{USABLE:.0%} of the {free:.1f} GB that are free"
    limit = half if device.kind == "cpu" and training.micro_batch_size == "auto" and not own else usable
    if training.micro_batch_size != "auto":
        choice = Choice(load.micro_batch, "as set", GIVEN)
    elif own:
        choice = Choice(load.micro_batch, "as the run began", "the run so far")
    elif not enough:
        choice = Choice(load.micro_batch, f"even the smallest does not fit in {usable}", plan_source)
    elif not modest:
        choice = Choice(load.micro_batch, f"the smallest, since nothing stays within {half}", plan_source)
    elif not load.accumulates:
        choice = Choice(load.micro_batch, "the whole batch is computed at once", plan_source)
    elif largest and device.kind == "cpu":
        choice = Choice(load.micro_batch, f"{_tokens(load)}: more is not faster on a CPU", plan_source)
    else:
        choice = Choice(load.micro_batch, f"{_tokens(load)}: the most within {limit}", plan_source)
    choices["training.micro_batch_size"] = choice
    if training.activation_checkpointing != "auto":
        choice = Choice(load.checkpointing, "as set", GIVEN)
    elif load.checkpointing:
        choice = Choice(True, f"without it not even one example fits in {limit}", plan_source)
        if not enough:
            choice = Choice(True, "it saves the most memory, though not enough", plan_source)
    else:
        choice = Choice(False, "activations fit, so nothing needs to be recomputed", plan_source)
    choices["training.activation_checkpointing"] = choice


def _explain_offloading(config: RunConfig, shape: ModelShape, load: Load, choices: dict[str, Choice]) -> None:
    """Say why activations are offloaded or not, and how much is."""
    kept = f"up to {offloaded_bytes(shape, load) / 1e9:.1f} GB of the computer's memory"
    if config.training.activation_offloading != "auto":
        choice = Choice(load.offloads, f"as set; {kept}" if load.offloads else "as set", GIVEN)
    elif load.offloads and config.training.engine == "unsloth":
        choice = Choice(True, f"Unsloth's checkpointing does so; {kept}", "Unsloth")
    elif load.offloads:
        choice = Choice(True, f"recomputing alone does not save enough; {kept}", "memory plan")
    else:
        choice = Choice(False, "it is not needed" if load.cuda else "a run on a CPU has one memory", "memory plan")
    choices["training.activation_offloading"] = choice


def _tokens(load: Load) -> str:
    if load.token_limit:
        return f"up to {load.token_limit:,} tokens at a time, rows of similar length together"
    return f"up to {load.tokens:,} tokens at a time"


def _divisors(batch: int, count: int) -> list[int]:
    """Divisors of the batch size, the largest first, none larger than the number of examples."""
    found = [size for size in range(batch, 0, -1) if batch % size == 0]
    return [size for size in found if size <= count] or [1]
