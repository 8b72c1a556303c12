"""What the methods that learn from chosen and rejected answers share."""

from __future__ import annotations

from typing import Any, Literal

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
