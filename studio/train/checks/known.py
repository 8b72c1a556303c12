"""What the checks look at, and how their errors are gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.errors import InputError, InputErrors
from studio.models.inspect.headers import Tensor, read_config, read_tensors
from studio.models.inspect.shape import ModelShape, longest_context
from studio.models.plan.fit import Lengths
from studio.settings import Settings

_OPTIONS = {spec.path: spec for spec in options_of(RunConfig)}


@dataclass(frozen=True)
class Known:
    """What the checks look at.

    Attributes:
        config: the run.
        folder: of the model.
        shape: of the model.
        raw: the model's config.json.
        tensors: what the model's files hold.
        settings: for runs that are named.
        lengths: counts of the tokenized data, None while it was not read.
    """

    config: RunConfig
    folder: Path
    shape: ModelShape
    raw: dict[str, Any]
    tensors: tuple[Tensor, ...]
    settings: Settings
    lengths: Lengths | None = None

    @classmethod
    def of(cls, config: RunConfig, folder: Path, settings: Settings, **raw: Any) -> Self:
        """Look at the model in `folder`, with these values of its config.json changed.

        Args:
            config: the run; its options decide which checks apply.
            folder: a Hugging Face checkpoint.
            settings: where runs named in the configuration are found.
            raw: keys of config.json, with the values to take instead of those in the file.

        Raises:
            InputError: it has no usable config.json, or broken weight files.
        """
        values, tensors = read_config(folder) | raw, read_tensors(folder)
        shape = ModelShape.from_parts(values, tensors, where=str(folder))
        return cls(config, folder, shape, values, tuple(tensors), settings)

    @property
    def context(self) -> int | None:
        """Tokens that the model reads, stretched as the run asks; None if config.json does not say."""
        return longest_context(self.raw, self.config.model)

    @property
    def scores(self) -> bool:
        """Whether the method makes a model that scores."""
        return self.config.method.kind.result == "scorer"


def used(config: RunConfig, section: str, name: str) -> bool:
    """Whether the chosen method and tuning read an option.

    Args:
        config: the run, with its method and tuning chosen.
        section, name: of the option; `tuning`, `rank` for `tuning.rank`.
    """
    return _OPTIONS[f"{section}.{name}"].applies(config.method.name, config.tuning.name)


def raise_all(known: Known, checks: Sequence[Callable[[Known], None]]) -> None:
    """Run checks and raise what all of them found, together; what several of them stumble over is said once."""
    errors: list[InputError] = []
    for one in checks:
        try:
            one(known)
        except InputError as error:
            found = getattr(error, "errors", [error])
            errors += [one for one in found if one.sentence not in {other.sentence for other in errors}]
    if errors:
        raise InputErrors(errors)
