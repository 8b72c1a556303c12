"""Prefixes that rows have in common, computed once: a system prompt, the prompt of two answers.

A token's states depend on what stands before it and on nothing else, so rows have equal states as long as they are
alike. Such a prefix is a segment of its own, which the rows continue; some of those may go on alike. For the pairs of
DPO it was described by Wang and Hegde 2024 (arXiv:2410.20305).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch

from studio.alike import alike
from studio.kernels.calls import Segments
from studio.models.plan.batches import LEAST_SAVED


@dataclass(frozen=True)
class Prefixes:
    """Rows of a batch as segments.

    Attributes:
        segments: one behind the other.
        taken: which tokens are computed, (N,) of all that stand in the rows, one row behind the other.
        places: for each of those, (R,), which of the computed ones has its states.
    """

    segments: Segments
    taken: torch.Tensor
    places: torch.Tensor


@dataclass(frozen=True)
class _Part:
    """Tokens from `begin` to `end` of some rows, which are alike up to there; `before`: the part that it continues."""

    rows: list[int]
    begin: int
    end: int
    before: int


def prefixes(rows: Sequence[list[int]]) -> Prefixes:
    """Find the prefixes that rows share.

    Args:
        rows: a number for each token, equal where token and position are.
    """
    parts = list(_parts(rows))
    lengths = [part.end - part.begin for part in parts]
    starts, firsts = (list(accumulate(some, initial=0)) for some in (lengths, map(len, rows)))
    taken = [torch.arange(firsts[part.rows[0]] + part.begin, firsts[part.rows[0]] + part.end) for part in parts]
    places: list[list[torch.Tensor]] = [[] for _ in rows]
    for part, start, end in zip(parts, starts, starts[1:], strict=False):
        for row in part.rows:
            places[row].append(torch.arange(start, end))
    segments = Segments(tuple(starts[:-1]), tuple(lengths), tuple(part.before for part in parts))
    return Prefixes(segments, torch.cat(taken), torch.cat([one for row in places for one in row]))


def _parts(rows: Sequence[list[int]]) -> Iterator[_Part]:
    """Yield the parts of rows, each behind the one that it continues."""
    ordered = sorted((row for row in range(len(rows)) if rows[row]), key=lambda row: rows[row])
    # Of each group: its rows, sorted so that all begin as the first and the last do; how many tokens of that are known;
    # and from where on, and behind which part, they are not computed yet.
    left = [(ordered, 0, 0, -1)] if ordered else []
    count = 0
    while left:
        group, same, begin, before = left.pop()
        same = alike(rows[group[0]], rows[group[-1]], same)
        if len(group) == 1 or (len(group) - 1) * (same - begin) >= LEAST_SAVED:
            yield _Part(group, begin, same, before)
            begin, before, count = same, count, count + 1
        ended = [row for row in group if len(rows[row]) == same]
        if begin < same:
            left += [([row], same, begin, before) for row in ended]
        for _, some in groupby(group[len(ended) :], key=lambda row: rows[row][same]):
            left.append((list(some), same, begin, before))
