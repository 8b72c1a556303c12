"""When an answer counts as right: the rule that the evaluation and the export share. Pure, no tokens, no models."""

from __future__ import annotations


def exact_match(expected: str, answer: str) -> bool:
    """True when the answer is the expected one, but for white space around it.

    Nothing else is forgiven: case, quotes, the order of JSON keys and inner spaces all count, so that the number means
    the same for every task and every model.
    """
    return answer.strip() == expected.strip()
