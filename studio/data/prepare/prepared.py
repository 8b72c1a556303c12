"""What a run's data are once they are prepared, and how much there is of them.

Where rows are streamed nobody has counted their tokens: the figures are then those of the rows that were looked at, and
what follows from them for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.data.report import DataReport
from studio.methods import RowKind


@dataclass(frozen=True)
class Estimate:
    """How much there is of rows that are streamed.

    Attributes:
        count, validation_count: rows of training and validation.
        tokens, supervised: of the rows of training, estimated.
        validation_tokens, validation_supervised: of the rows of validation, estimated.
        longest, validation_longest: tokens of the longest row, estimated, within the limit.
        each: tokens of the first rows in the order of the first epoch, which were looked at.
    """

    count: int
    validation_count: int
    tokens: int
    supervised: int
    validation_tokens: int
    validation_supervised: int
    longest: int
    validation_longest: int
    each: Sequence[int] = field(repr=False)


@dataclass
class Prepared:
    """The result of `prepare_data`.

    Attributes:
        train, validation: rows as tokens, all of them in memory, or read when they are asked for.
        kind: which units the rows are (`data.prepare.units`).
        tokenizer: the one given, with the run's chat template; saved with what is trained on these rows.
        estimate: how much there is, where rows are streamed; None where all of them were counted.
        looked_at: those rows whose tokens are known, where rows are streamed.
    """

    train: Sequence[Any]
    validation: Sequence[Any]
    report: DataReport = field(default_factory=DataReport)
    kind: RowKind = "answers"
    tokenizer: Any = None
    estimate: Estimate | None = None
    looked_at: Sequence[Any] = ()

    @property
    def known(self) -> Sequence[Any]:
        """Rows whose tokens are known before the training."""
        return [*self.train, *self.validation] if self.estimate is None else self.looked_at

    @property
    def longest(self) -> int:
        """Tokens of the longest row of training or validation."""
        if self.estimate is not None:
            return max(self.estimate.longest, self.estimate.validation_longest)
        longest: int = max(row.length for row in self.known)
        return longest
