"""Rows over `data.max_length`: refused, left out or cut, and always counted."""

from __future__ import annotations

from collections.abc import Sequence

from studio.config.data import DataConfig
from studio.data.files.datafiles import place
from studio.data.prepare.units import Unit
from studio.data.quality.report import SourceReport
from studio.errors import InputError

SHOWN_ERRORS = 5


def within(unit: Unit, config: DataConfig, source: SourceReport) -> Unit | None:
    """Return the example within the limit, None if it is left out; what is cut or left out is counted in `source`.

    Args:
        unit: one example, as token ids.
        config: `max_length` and what becomes of longer examples.
        source: counts of the unit's source; changed.
    """
    kept: Unit | None = unit
    if unit.length > config.max_length:
        if config.truncation == "drop":
            source.dropped += 1
            return None
        kept = unit.cut(config.max_length)
        if kept is None:
            source.dropped_unsupervised += 1
            return None
        source.cut += 1
    return kept


def refuse_long(rows: Sequence[Unit], limit: int, joinable: bool) -> None:
    """Refuse rows over the limit.

    Args:
        rows: all of them, short ones included.
        limit: in tokens.
        joinable: whether splitting documents across examples can be suggested.

    Raises:
        InputError: there are some; the first of them are named, with the ways out.
    """
    long = [row for row in rows if row.length > limit]
    if not long:
        return
    longest = max(row.length for row in long)
    named = ", ".join(f"{place(row.path, row.row)} ({row.length} tokens)" for row in long[:SHOWN_ERRORS])
    more = f" and {len(long) - SHOWN_ERRORS:,} more" if len(long) > SHOWN_ERRORS else ""
    are = "is" if len(long) == 1 else "are"
    what = f"{len(long):,} of {len(rows):,} rows {are} longer than {limit} tokens"
    raise InputError(
        f"{what}: {named}{more}; the longest has {longest}",
        where="data.max_length",
        fix=f"Set data.max_length to {longest}, or data.truncation to drop (drop these rows) or cut (truncate them)"
        + (", or method.documents to join (split them across examples)" if joinable else ""),
    )
