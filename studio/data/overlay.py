"""Character spans laid over tokens.

Where a token ends in the text is the tokenizer's word; which of them count is decided here. It knows neither
templates nor messages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    # As a rule each token has characters of its own and leaves none out; then only those at a border are looked at.
    if offsets and starts[0] == 0 < ends[0] and starts[1:] == ends[:-1] and len(set(ends)) == len(ends):
        return Laid(*_over_tiles(ids, starts, ends, spans), bool(text[ends[-1] :].strip()))
    return Laid(*_over_any(ids, offsets, spans), loses_text(text, offsets))


def _over_tiles(
    ids: Sequence[int], starts: list[int], ends: list[int], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int], int]:
    labels = [IGNORED] * len(ids)
    across = set()
    for left, right in spans:
        first, behind = bisect_left(starts, left), bisect_right(ends, right)
        labels[first:behind] = ids[first:behind]
        if left < right and first > 0 and left < ends[first - 1]:
            across.add(first - 1)
        if left < right and behind < len(ids) and starts[behind] < right:
            across.add(behind)
    return labels, ends, len(across)


def _over_any(
    ids: Sequence[int], offsets: Offsets, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int], int]:
    labels = [IGNORED] * len(ids)
    ends: list[int] = []
    straddling = at = which = 0
    for k, (start, end) in enumerate(offsets):
        # A further token of the same character starts before `at` and ends there; it shares the character's fate.
        start, end = min(start, at), max(end, at)
        while which < len(spans) and spans[which][1] <= start and spans[which][1] < end:
            which += 1
        if which < len(spans) and end > start:
            left, right = spans[which]
            if left <= start and end <= right:
                labels[k] = ids[k]
            elif start < right and left < end:
                straddling += 1
        at = end
        ends.append(end)
    return labels, ends, straddling


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
