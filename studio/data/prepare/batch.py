"""The first micro-batch as a trainer gets it, and what padding and packing would cost, without torch.

transformers draws the order of an epoch with `torch.randperm`: a Fisher-Yates shuffle over the 32-bit numbers of a
Mersenne Twister, which numpy has too. So the order is worked out here, equal to the trainer's (a test compares the
two), and torch, 190 MB of memory and 2 seconds, stays out of the data worker.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from studio.data.masks.overlay import IGNORED
from studio.data.prepare.units import Encoded, Pair, Unit
from studio.models.plan.batches import Batching, look

Values = dict[str, Any]
Item = TypeVar("Item")


def mixed(rows: Sequence[Item], seed: int) -> list[Item]:
    """Return rows in the order of a method that shuffles them once (`Method.mixed`)."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order


def epoch_order(count: int, seed: int, shuffle: bool = True, first: int | None = None) -> list[int]:
    """Return the places of the rows in the order of the first epoch, on one device.

    Args:
        count: rows.
        seed: `training.seed`.
        shuffle: `data.shuffle`; without it the rows come as they are.
        first: only so many of them are asked for; None for all.
    """
    wanted = count if first is None else min(first, count)
    if not shuffle:
        return list(range(wanted))
    from numpy.random import RandomState

    drawn = max(0, min(wanted, count - 1))
    numbers = RandomState(seed % 2**32).randint(0, 2**32, size=drawn, dtype="uint32").tolist()
    order = list(range(wanted))
    moved: dict[int, int] = {}  # what stands now at places behind those that are asked for
    for at, number in enumerate(numbers):
        other = at + number % (count - at)
        here = order[at]
        if other < wanted:
            order[at], order[other] = order[other], here
        else:
            order[at], moved[other] = moved.get(other, other), here
    return order


def row_length(row: Values) -> int:
    """Tokens of the longest sequence of a row as a trainer's collator takes it: an answer's, or a pair's."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row.get("prompt_ids", ())) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def collate(rows: Sequence[Unit], pad: int) -> Values:
    """Return rows padded on the right as TRL's collators do, with -100 and 0 where nothing is.

    Args:
        rows: (B,) answers or pairs.
        pad: id of the padding token.

    Returns:
        For answers input_ids, labels and attention_mask, each (B, T). For pairs, as DPO has them, input_ids,
        attention_mask and completion_mask, each (2B, T), the better answers first.
    """
    answers = [row for row in rows if isinstance(row, Encoded)]
    if answers:
        ids = [row.input_ids for row in answers]
        rest, fill = {"labels": [row.labels for row in answers]}, IGNORED
    else:
        pairs = [row for row in rows if isinstance(row, Pair)]
        both = [(one.prompt_ids, one.chosen_ids) for one in pairs] + [
            (one.prompt_ids, one.rejected_ids) for one in pairs
        ]
        ids = [prompt + answer for prompt, answer in both]
        rest, fill = {"completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in both]}, 0
    longest = max(map(len, ids))
    padded = {"input_ids": _filled(ids, pad, longest)}
    padded |= {name: _filled(values, fill, longest) for name, values in rest.items()}
    return {**padded, "attention_mask": _filled([[1] * len(one) for one in ids], 0, longest)}


def collate_packed(rows: Sequence[Encoded]) -> Values:
    """Return answers one behind the other without padding, as `training.padding_free` has them.

    Returns:
        input_ids, labels and position_ids, each (1, T). Positions begin at 0 with each row, by which attention keeps
        to the row; the first token of a row has none before it that could predict it.
    """
    return {
        "input_ids": [[token for row in rows for token in row.input_ids]],
        "labels": [[label for row in rows for label in (IGNORED, *row.labels[1:])]],
        "position_ids": [[at for row in rows for at in range(row.length)]],
    }


def shape(rows: Sequence[Unit]) -> dict[str, list[int]]:
    """Return the shape of what a collator makes of rows whose ids are not worked out: a pair becomes two rows."""
    many = 2 * len(rows) if isinstance(rows[0], Pair) else len(rows)
    return {"input_ids": [many, max(row.length for row in rows)]}


def _filled(rows: list[list[int]], value: int, length: int) -> list[list[int]]:
    return [row + [value] * (length - len(row)) for row in rows]


def padding(lengths: Sequence[int], batching: Batching, order: Sequence[int], batch: int = 0) -> Values:
    """Return what an epoch's micro-batches are filled up with.

    Args:
        lengths: (N,) tokens of each row.
        batching: how much is computed at a time.
        order: (N,) places of the rows as they come.
        batch: rows of an update, of which those of like length are computed together; 0 where they are not.

    Returns:
        micro_batch, tokens (of the rows), padded (with what is filled up), waste (share of `padded`).
    """
    found = look([lengths[at] for at in order], batch or batching.rows, batching)
    return {"micro_batch": batching.rows, **_waste(found.tokens, found.padded)}


def packing(lengths: Sequence[int], limit: int) -> Values:
    """Return what joining rows up to the limit would leave empty: best fit, the longest row first, as TRL's bfd.

    Returns:
        bins (sequences of `limit` tokens), tokens, padded, waste.
    """
    free: list[int] = []  # room left in the bins that are not full, ascending
    bins = 0
    for length in sorted(lengths, reverse=True):
        at = bisect.bisect_left(free, length)
        if at < len(free):
            room = free.pop(at) - length
        else:
            room, bins = limit - length, bins + 1
        if room > 0:
            bisect.insort(free, room)
    return {"bins": bins, **_waste(sum(lengths), bins * limit)}


def _waste(tokens: int, padded: int) -> Values:
    return {"tokens": tokens, "padded": padded, "waste": round(1 - tokens / padded, 4) if padded else 0.0}
