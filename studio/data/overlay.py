"""Character spans laid over tokens.

Where a token ends in the text is the tokenizer's word; which of them count is decided here. It knows neither
templates nor messages.
"""

from __future__ import annotations

from collections.abc import Sequence

IGNORED = -100


def lay_over(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int], int]:
    """Lay character spans over tokens.

    Args:
        ids: (T,) token ids.
        offsets: (T,) (start, end) of each token in characters. Blanks that a tokenizer leaves out of them belong to
            the token that follows.
        spans: (start, end) in characters, ascending and disjoint.

    Returns:
        labels (T,): the id where a token lies wholly in a span, -100 elsewhere; ends (T,): running end of each token,
        so that the tokens tile the text; number of tokens across a span's border, which are not supervised.
    """
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


def loses_text(text: str, offsets: Sequence[tuple[int, int]]) -> bool:
    """Return whether a character other than a blank has no token; a tokenizer then drops it without a word.

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
