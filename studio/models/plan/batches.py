"""How the rows of one update are computed a part at a time: which rows together, and how many tokens that is.

Rows of like length go together, which changes neither the rows that an update sees nor its loss: it is a mean over all
of them. Pure arithmetic, so that trainer, plan and page form the same micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.config import RunConfig

# So many rows, in the order of the first epoch, are looked at for the largest micro-batch and the padding.
SEEN_ROWS = 4096
# A prefix that rows share is computed once where that saves so many tokens; fewer are not worth it.
LEAST_SAVED = 32


@dataclass(frozen=True)
class Batching:
    """How many rows are computed at a time.

    Attributes:
        rows: at most so many.
        tokens: and at most so many tokens, all sequences of a row counted, but always one row; 0 for no such limit.
        padded: each row is computed as long as the longest with it, and so it counts.
    """

    rows: int
    tokens: int = 0
    padded: bool = True

    def computed(self, rows: int, longest: int, tokens: int) -> int:
        """Tokens that are computed for some sequences together.

        Args:
            rows: how many there are.
            longest: tokens of the longest.
            tokens: of all of them, without padding.
        """
        return rows * longest if self.padded else tokens


@dataclass(frozen=True)
class Seen:
    """Micro-batches of some updates.

    Attributes:
        largest: tokens of the largest, as they are computed.
        scored: and with those that are computed once counted for each of their rows.
        padded, tokens: of all of them as they are computed, and as the rows have them.
        parts, rows: how many there are of them, and of rows, in updates that are whole (a last one has fewer rows).
        most: how many there are in one update.
    """

    largest: int
    scored: int
    padded: int
    tokens: int
    parts: int
    most: int
    rows: int


def by_length(config: RunConfig) -> bool:
    """Whether a run computes rows of like length together.

    Where the loss of an update is a mean over its tokens or pairs. orpo and kto put rows together by number (`dealt`),
    ppo and grpo learn from answers that are not written yet, packing knows no padding, and Unsloth brings a trainer of
    its own.
    """
    training = config.training
    if training.engine == "unsloth":
        return False
    method = config.method
    return method.kind.by_length(method) and not config.padding_free


def dealt(config: RunConfig) -> bool:
    """Whether an update is computed as a whole, although its rows are not chosen by length: its longest ones together,
    as many as are to be computed at a time.
    """
    return config.training.engine != "unsloth" and config.method.kind.deals(config.method)


def split(lengths: Sequence[int], batching: Batching, sequences: int = 1) -> list[list[int]]:
    """Return the places of an update's rows in micro-batches, the longest rows first.

    Args:
        lengths: (N,) tokens of each row's longest sequence.
        batching: how much is computed at a time.
        sequences: of a row that are computed together.
    """
    parts: list[list[int]] = []
    filled = 0  # tokens of the last part, without padding
    for at in _longest_first(lengths):
        if parts:
            rows, longest = len(parts[-1]) + 1, lengths[parts[-1][0]]
            tokens = batching.computed(sequences * rows, longest, sequences * (filled + lengths[at]))
            if rows <= batching.rows and (not batching.tokens or tokens <= batching.tokens):
                parts[-1].append(at)
                filled += lengths[at]
                continue
        parts.append([at])
        filled = lengths[at]
    return parts


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))


def shares(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Return the places of an update's rows by the rank that computes them, which has as many and as long ones as
    any other: dealt out from the longest on, forth and back. A rank has none where there are fewer rows than ranks.

    Args:
        lengths: (N,) tokens of each row's longest sequence.
        ranks: how many there are.
    """
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for turn, at in enumerate(_longest_first(lengths)):
        lap, seat = divmod(turn, ranks)
        dealt[seat if lap % 2 == 0 else ranks - 1 - seat].append(at)
    return dealt


def computed_once(repeats: Sequence[int], common: int, sequences: int = 1) -> int:
    """Return how many tokens of a micro-batch without padding need not be computed, since others begin like them.

    Args:
        repeats: (B,) tokens of each row that repeat a prefix within it, `common` among them.
        common: tokens that all rows begin with.
        sequences: as in `split`.
    """
    spared = (sequences * len(repeats) - 1) * common
    if spared < LEAST_SAVED:
        spared = common = 0
    return spared + sum(count - common for count in repeats if count - common >= LEAST_SAVED)


def look(
    each: Sequence[int], batch: int, batching: Batching, sequences: int = 1, sums: Sequence[int] = (),
    repeats: Sequence[int] = (), common: int = 0,
) -> Seen:  # fmt: skip
    """Look at the micro-batches of the updates that these rows make, in their order.

    Args:
        each: (N,) tokens of each row's longest sequence, at least one.
        batch: rows of an update.
        batching, sequences: as in `split`.
        sums: (N,) tokens of all sequences of each row; without them each counts as long as the longest.
        repeats, common: (N,) and one number, as in `computed_once`, where prefixes are computed once.
    """
    sums = sums or [sequences * length for length in each]
    repeats = repeats or [0] * len(each)
    whole: list[int] = []
    sizes: list[int] = []
    most = parts_of_whole = rows_of_whole = 0
    for start in range(0, len(each), batch):
        lengths = each[start : start + batch]
        parts = split(lengths, batching, sequences)
        for part in parts:
            tokens = sum(sums[start + at] for at in part)
            whole.append(batching.computed(sequences * len(part), lengths[part[0]], tokens))
            once = 0 if batching.padded else computed_once([repeats[start + at] for at in part], common, sequences)
            sizes.append(whole[-1] - once)
        most = max(most, len(parts))
        if len(lengths) == batch or not start:
            parts_of_whole, rows_of_whole = parts_of_whole + len(parts), rows_of_whole + len(lengths)
    return Seen(max(sizes), max(whole), sum(sizes), sum(sums), parts_of_whole, most, rows_of_whole)
