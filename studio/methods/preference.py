"""What the methods that learn from better and worse answers share: their options, their metrics, who wins."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import field_validator

from studio.errors import InputError
from studio.methods.method import Asked, Method, Metric
from studio.option import Options, option

METRICS = (
    Metric("rewards/accuracies", "Reward accuracy", "higher"),
    Metric("rewards/margins", "Reward margin", "higher"),
    Metric("rewards/chosen", "Chosen reward", "higher"),
    Metric("rewards/rejected", "Rejected reward", "lower"),
)


class BetaOptions(Options):
    """How far the model may go from where it was."""

    beta: float | Literal["auto"] = option(
        "auto",
        "How strongly the model is kept close to the reference model: the KL coefficient of dpo, kto and grpo; "
        "without a "
        "reference model the weight of the preference term. auto is the method's usual value (docs/methods.md).",
        title="Beta",
        decides="loss",
        tier="basic",
    )

    @field_validator("beta")
    @classmethod
    def _strength(cls, value: float | str) -> float | str:
        if value != "auto" and not 0 <= float(value) <= 100:
            raise ValueError("a number from 0 to 100, or auto")
        return value


class PreferenceMethod(Method):
    """A method whose loss is `beta` times a preference."""

    def check(self, options: Any, asked: Asked) -> None:
        """Refuse a beta of 0."""
        if options.beta == 0:
            raise InputError(
                "with 0 the preference pairs have no effect",
                where="method.beta",
                fix=f"{self.beta:g} is usual; try auto",
            )


class Ranked(NamedTuple):
    """An answer: what it may be compared among (such as its prompt's ids), whether it is good, the model's score."""

    among: tuple[Any, ...]
    good: bool
    score: float


def good_above_bad(answers: list[Ranked]) -> float | None:
    """Return the share of (good, bad) answers that are compared in which the good one scores higher.

    Equal scores count half, so rewards of a model that did not move give 0.5. Where no group has both kinds, all good
    answers are compared with all bad ones (the area under the ROC curve). None if one of the two kinds is missing.

    Args:
        answers: scored answers, in any order.
    """
    groups: dict[tuple[Any, ...], list[Ranked]] = {}
    for one in answers:
        groups.setdefault(one.among, []).append(one)
    wins = [win for group in groups.values() for win in _wins(group)] or _wins(answers)
    return sum(wins) / len(wins) if wins else None


def _wins(answers: list[Ranked]) -> list[float]:
    good, bad = ([one.score for one in answers if one.good is kind] for kind in (True, False))
    return [1.0 if a > b else 0.5 if a == b else 0.0 for a in good for b in bad]
