"""Character spans laid over tokens.

Where a token ends in the text is the tokenizer's word; which of them count is decided here. It knows neither
templates nor messages.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

IGNORED = -100

Offsets = Sequence[tuple[int, int]]


class Laid(NamedTuple):
    """Character spans laid over tokens.

    Attributes:
        labels: (T,) the id where a token lies wholly in a span, -100 elsewhere.
        ends: (T,) running end of each token, so that the tokens tile the text.
        straddling: number of tokens across a span's border, which are not supervised.
        lost: whether a character other than a blank has no token; a tokenizer then drops it without a word.
    """

    labels: list[int]
    ends: list[int]
    straddling: int
    lost: bool


def lay_over(text: str, ids: Sequence[int], offsets: Offsets, spans: Sequence[tuple[int, int]]) -> Laid:
    """Lay character spans over tokens.

    Args:
        text: the text that was tokenized.
        ids: (T,) token ids.
        offsets: (T,) (start, end) of each token in characters. Blanks that a tokenizer leaves out of them belong to
            the token that follows.
        spans: (start, end) in characters, ascending and disjoint.
    """
    labels = [IGNORED] * len(ids)
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
                labels[k] = ids[k]
            elif start < right and left < end:
                straddling += 1
        at = end
    return Laid(labels, ends, straddling, loses_text(text, offsets))


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
        if start > at and text[at:start].strip():
            return True
        at = max(at, end)
    return bool(text[at:].strip())
