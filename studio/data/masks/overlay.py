"""Character spans laid over tokens, and which tokens count as runs of places.

Where a token ends in the text is the tokenizer's word; which of them count is decided here. It knows neither
templates nor messages. A run is two numbers however long it is, where a list of labels takes 8 bytes a token and more.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

IGNORED = -100
# What is no blank. Python counts the separators of files, groups, records and units as blanks; they are data.
_WRITTEN = re.compile(r"[\S\x1c-\x1f]")

Offsets = Sequence[tuple[int, int]]
# Where runs of counted tokens begin and end, one after the other: begin, end, begin, end … ascending, never touching.
Runs: TypeAlias = "array[int]"


def labels_of(ids: Sequence[int], runs: Runs) -> list[int]:
    """Return (T,) labels: the id where a token lies in a run, -100 elsewhere."""
    labels = [IGNORED] * len(ids)
    for begin, end in zip(runs[::2], runs[1::2], strict=True):
        labels[begin:end] = ids[begin:end]
    return labels


def runs_of(labels: Sequence[int]) -> Runs:
    """Return the runs of the labels that are not -100."""
    runs = array("i")
    for at, label in enumerate(labels):
        if label != IGNORED:
            add_run(runs, at, at + 1)
    return runs


def add_run(runs: Runs, begin: int, end: int) -> None:
    """Put a run behind the others; one that begins where the last one ends makes it longer.

    Args:
        runs: begin and end of each run in turn, ascending; changed in place.
        begin, end: places of tokens, the end not included; an empty run is ignored.
    """
    if begin >= end:
        return
    if runs and runs[-1] == begin:
        runs[-1] = end
    else:
        runs.append(begin)
        runs.append(end)


def cut_runs(runs: Runs, start: int, end: int) -> Runs:
    """Return the parts of runs that lie within the places from `start` up to `end`, counted from `start`.

    Args:
        runs: begin and end of each run in turn, ascending.
        start, end: places of tokens, the end not included.
    """
    inside = array("i")
    for left, right in zip(runs[::2], runs[1::2], strict=True):
        add_run(inside, max(left, start) - start, min(right, end) - start)
    return inside


def counted(runs: Runs) -> int:
    """Return how many tokens lie in runs."""
    return sum(runs[1::2]) - sum(runs[::2])


class Laid(NamedTuple):
    """Character spans laid over tokens.

    Attributes:
        trained: runs of the tokens that lie wholly in a span.
        ends: (T,) running end of each token, so that the tokens tile the text.
        straddling: number of tokens across a span's border, which are not supervised.
        lost: whether a character other than a blank has no token; a tokenizer then drops it without a word.
    """

    trained: Runs
    ends: list[int]
    straddling: int
    lost: bool


def lay_over(text: str, offsets: Offsets, spans: Sequence[tuple[int, int]]) -> Laid:
    """Lay character spans over tokens.

    Args:
        text: the text that was tokenized.
        offsets: (T,) (start, end) of each token in characters. Blanks that a tokenizer leaves out of them belong to
            the token that follows.
        spans: (start, end) in characters, ascending and disjoint.
    """
    trained = array("i")
    ends = running_ends(offsets)
    straddling = at = which = 0
    for k, ((start, _), end) in enumerate(zip(offsets, ends, strict=True)):
        # A further token of the same character starts before `at` and ends there; it shares the character's fate.
        start = min(start, at)
        while which < len(spans) and spans[which][1] <= start and spans[which][1] < end:
            which += 1
        if which < len(spans) and end > start:
            left, right = spans[which]
            if left <= start and end <= right:
                add_run(trained, k, k + 1)
            elif start < right and left < end:
                straddling += 1
        at = end
    return Laid(trained, ends, straddling, loses_text(text, offsets))


def running_ends(offsets: Offsets) -> list[int]:
    """Return (T,) the character at which each token ends, so that the tokens tile the text."""
    return list(itertools.accumulate((end for _, end in offsets), max))


def loses_text(text: str, offsets: Offsets) -> bool:
    """Return whether a character other than a blank has no token.

    Args:
        text: the text that was tokenized.
        offsets: (T,) (start, end) of each token in characters.
    """
    at = 0
    for start, end in offsets:
        if start > at and _WRITTEN.search(text, at, start):
            return True
        at = max(at, end)
    return bool(_WRITTEN.search(text, at))
