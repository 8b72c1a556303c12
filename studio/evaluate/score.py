"""When an answer counts as right, and a report in one sentence: shared and pure, no tokens, no models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def exact_match(expected: str, answer: str) -> bool:
    """True when the answer is the expected one, but for white space around it.

    Nothing else is forgiven: case, quotes, the order of JSON keys and inner spaces all count, so that the number means
    the same for every task and every model.
    """
    return answer.strip() == expected.strip()


def in_a_sentence(report: Mapping[str, Any]) -> str:
    """Return what an evaluation found.

    Args:
        report: report/evaluation.json; one made before there were measures is one of exact match.
    """
    before, after = report["before"], report["after"]
    if "preference_accuracy" in after:
        return (
            f"preference accuracy on {after['total']} {report['of']} of {report['data']}: "
            f"{before['preference_accuracy']:.1%} before, {after['preference_accuracy']:.1%} after; "
            f"reward accuracy {report['reward_accuracy']:.1%}"
        )
    return (
        f"exact match on {after['total']} rows of {report['data']}: "
        f"{before['correct']} before ({before['exact_match']:.1%}), "
        f"{after['correct']} after ({after['exact_match']:.1%})"
    )
