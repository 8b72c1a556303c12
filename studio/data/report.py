"""What was found in the data: counts, lengths and findings, as plain values.

The page, the command line and a job's environment.json show the same report. It is made by `prepare` and by the
data worker; it holds no text of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# How plain questions and answers are read; "" where there are none.
ReadAs = Literal["", "conversation", "raw"]
BARS = 24  # of a histogram of lengths; fewer where they do not differ by as many


@dataclass
class SourceReport:
    """One file.

    Attributes:
        path: as the configuration names it.
        file: where it was found.
        part: what it is used for; a share kept away from training is counted in `validation_rows`.
        sha256: of its bytes.
        reason: why the format was taken, such as "the rows have the key messages"; "" where it was named.
        rows: rows read.
        duplicates: rows left out because they repeat an earlier one (data.deduplicate).
        kept: rows that became examples (training and validation together).
        dropped: over-long rows left out (truncation: drop).
        dropped_unsupervised: rows left out because a cut left nothing to learn.
        cut: over-long rows shortened (truncation: cut).
        tokens, supervised_tokens: of the kept examples, repeats included.
        chosen: rows taken of those read (`rows` of the source); the rest is not looked at further.
        unused: rows that the mix of several sets left out.
        repeated: training examples that repeat a row, by the mix.
        commit: of a set from the Hub.
        cached: whether the rows' tokens were there already (`tokencache`).
        read_as: how its plain questions and answers were read; "" where it has none.
    """

    path: str
    file: str
    part: Literal["train", "validation"]
    sha256: str
    bytes: int
    format: str
    rows: int = 0
    duplicates: int = 0
    kept: int = 0
    dropped: int = 0
    dropped_unsupervised: int = 0
    cut: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    chosen: int = 0
    unused: int = 0
    repeated: int = 0
    commit: str = ""
    reason: str = ""
    cached: bool = False
    read_as: ReadAs = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands.

    Attributes:
        source: which of the run's sources, from 0, as `preview` takes it; a file for validation comes last.
        path: as the configuration names it.
        row: its number in the file, as sentences give it.
        at: its place among the file's rows, from 1, as `preview` takes it.
    """

    source: int
    path: str
    row: int
    at: int


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know: how many rows, what it means, what to do.

    Attributes:
        level: error (the run would refuse the data), warning or info.
        count: rows concerned.
        rows: numbers of the first of them, where one file is meant.
        check: name of what was looked for, as `keep` takes it in `drop`; "" where it has none.
        action: what happens to these rows if nothing is changed.
        places: the first of the rows, to be looked at.
        change: what would make it otherwise: the place of a source from 0 (`source`), and options of it.
    """

    level: Literal["info", "warning", "error"]
    count: int
    text: str
    fix: str = ""
    rows: tuple[int, ...] = ()
    check: str = ""
    action: str = ""
    places: tuple[Place, ...] = ()
    change: dict[str, Any] | None = None


@dataclass(frozen=True)
class LengthSummary:
    """Tokens per row before any cut.

    Attributes:
        edges: (B + 1,) borders of the histogram's bars in tokens; bar i counts edges[i] <= length < edges[i + 1].
        counts: (B,) rows in each bar.
    """

    rows: int = 0
    tokens: int = 0
    shortest: int = 0
    median: int = 0
    p95: int = 0
    longest: int = 0
    over_limit: int = 0
    limit: int = 0
    edges: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass
class DataReport:
    """All files together. `lengths` covers every row read, also those dropped.

    Attributes:
        tokens, supervised_tokens: of the rows of training, repeats included, and of validation; estimated where rows
            are streamed.
    """

    sources: list[SourceReport] = field(default_factory=list)
    train_rows: int = 0
    validation_rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    lengths: LengthSummary = field(default_factory=LengthSummary)
    duplicates_train: int = 0
    duplicates_across: int = 0
    seed: int = 0
    stop_text: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Rows left out, for whatever reason."""
        return sum(one.dropped + one.dropped_unsupervised + one.duplicates for one in self.sources)

    @property
    def cut(self) -> int:
        """Rows shortened."""
        return sum(source.cut for source in self.sources)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `dropped` and `cut` summed."""
        return {**asdict(self), "dropped": self.dropped, "cut": self.cut}


def summarize_lengths(lengths: Sequence[int], limit: int) -> LengthSummary:
    """Return the figures and the histogram of some lengths in tokens.

    Args:
        lengths: tokens of each row.
        limit: longest length allowed.
    """
    if not lengths:
        return LengthSummary(limit=limit)
    ordered = sorted(lengths)
    low, high = ordered[0], ordered[-1]
    width = max(1, math.ceil((high + 1 - low) / BARS))
    edges = list(range(low, high + 1 + width, width))
    counts = [0] * (len(edges) - 1)
    for length in ordered:
        counts[(length - low) // width] += 1
    return LengthSummary(
        rows=len(ordered),
        tokens=sum(ordered),
        shortest=low,
        median=ordered[(len(ordered) - 1) // 2],
        p95=ordered[math.ceil(0.95 * len(ordered)) - 1],
        longest=high,
        over_limit=sum(length > limit for length in ordered),
        limit=limit,
        edges=tuple(edges),
        counts=tuple(counts),
    )
