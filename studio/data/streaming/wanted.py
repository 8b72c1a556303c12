"""Whether a run's rows are streamed, and what cannot be done with rows that were not all looked at.

`auto` goes by the size of the files alone, never by the memory that is free at the time: a run that goes on must read
its rows as it did before.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.config.data import DataConfig
from studio.data.report import Finding
from studio.data.sources.locate import Located
from studio.errors import InputError
from studio.methods import MethodConfig

OPTION = "data.streaming"
# Read whole, a gigabyte of text takes five to seven of memory: its rows, their tokens, and those as the trainer has
# them.
LARGE_BYTES = 1_000_000_000


def is_streamed(config: DataConfig, method: MethodConfig, sources: Sequence[Located]) -> bool:
    """Whether the rows of these sources are streamed.

    Args:
        config: section `data`.
        method: section `method`.
        sources: all of the run's, those for validation too.

    Raises:
        InputError: it was asked for and cannot be done.
    """
    if config.streaming == "off":
        return False
    problem = obstacle(config, method)
    if config.streaming == "on" and problem is not None:
        raise problem
    return config.streaming == "on" or (problem is None and _size(sources) >= LARGE_BYTES)


def is_looked_at(config: DataConfig, method: MethodConfig, sources: Sequence[Located]) -> bool:
    """Whether a page looks at some rows of these sources instead of reading all of them, also where a run would not
    start with them as they are.

    Args:
        config: section `data`.
        method: section `method`.
        sources: those that are to be shown.
    """
    if config.streaming == "off" or method.kind.rows != "answers":
        return False
    return config.streaming == "on" or _size(sources) >= LARGE_BYTES


def obstacle(config: DataConfig, method: MethodConfig) -> InputError | None:
    """Return the error that says why a run's rows cannot be streamed; None where they can."""
    off = f"or set {OPTION} to off"
    if method.kind.rows != "answers":
        return InputError(
            f"{method.kind.title} needs all of its rows before it starts, so they cannot be streamed", where=OPTION,
            fix="Set it to auto or off",
        )  # fmt: skip
    if method.kind.joins(method):
        return InputError(
            "where joined texts are split is only known once all of them are tokens, so they cannot be streamed",
            where=OPTION, fix=f"Set method.documents to separate with data.truncation: cut, {off}",
        )  # fmt: skip
    if config.deduplicate != "none":
        return InputError(
            "duplicates are found by comparing all rows, so they cannot be dropped from a stream", where=OPTION,
            fix=f"Set data.deduplicate to none, save a copy without them first (studio data keep), {off}",
        )  # fmt: skip
    if config.truncation == "error":
        return InputError(
            "the longest row is only known once all of them are tokens, so it cannot be refused before the start",
            where=OPTION, fix=f"Set data.truncation to cut or drop, {off}",
        )  # fmt: skip
    return None


def size_findings(config: DataConfig, method: MethodConfig, sources: Sequence[Located]) -> list[Finding]:
    """Say of large files that are read whole that they need not be.

    Args:
        config: section `data`.
        method: section `method`.
        sources: all of the run's.
    """
    if config.streaming != "auto" or (size := _size(sources)) < LARGE_BYTES:
        return []
    problem = obstacle(config, method)
    if problem is None or method.kind.rows != "answers":
        return []
    text = f"the files have {size / 1e9:.1f} GB, and all of them are held in memory: {problem.what}"
    return [Finding("warning", 0, text, problem.fix.replace(f", or set {OPTION} to off", ""))]


def _size(sources: Sequence[Located]) -> int:
    return sum(source.bytes for source in sources)
