"""What the checks look at, and how their errors are gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.errors import InputError, InputErrors
from studio.models.fit import Lengths
from studio.models.shape import ModelShape
from studio.settings import Settings

_OPTIONS = {spec.path: spec for spec in options_of(RunConfig)}


@dataclass(frozen=True)
class Known:
    """What the checks look at.

    Attributes:
        config: the run.
        shape: of the model.
        raw: the model's config.json.
        lengths: counts of the tokenized data, None while it was not read.
        settings: for runs that are named.
    """

    config: RunConfig
    shape: ModelShape
    raw: dict[str, Any]
    settings: Settings
    lengths: Lengths | None = None


def used(config: RunConfig, section: str, name: str) -> bool:
    """Whether the chosen method and tuning read an option."""
    return _OPTIONS[f"{section}.{name}"].applies(config.method.name, config.tuning.name)


def raise_all(known: Known, checks: Sequence[Callable[[Known], None]]) -> None:
    """Run checks and raise what all of them found, together."""
    errors: list[InputError] = []
    for one in checks:
        try:
            one(known)
        except InputError as error:
            errors += getattr(error, "errors", [error])
    if errors:
        raise InputErrors(errors)
