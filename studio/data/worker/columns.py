"""Which columns a file has, and which of them is read as what: what the page offers as drop-downs."""

from __future__ import annotations

import itertools
import json
from typing import Any

from studio.config.data import DataSource
from studio.data.formats.column_names import ROLES, known_columns, side_columns
from studio.data.sources.locate import Located
from studio.data.sources.reading import first_keys
from studio.data.wire import Values
from studio.methods import RowKind

ROWS, MOST_COLUMNS, SAMPLE = 3, 100, 80


def columns_of(source: DataSource, located: Located, kind: RowKind) -> Values:
    """Return the columns of a source, its first rows, and what each column is taken for.

    Args:
        source: as data.train holds it.
        located: its file.
        kind: what the method learns from, which says which roles there are.

    Returns:
        columns: their names.
        rows: the first rows, a text of at most `SAMPLE` characters for each column.
        roles: what a column can be.
        mapping: column by role: what the source says, else what the names say.
    """
    rows = [row for _, row in itertools.islice(located.rows(0), ROWS)]
    shown_names = (str(name) for row in rows for name in row)
    names = list(dict.fromkeys([*shown_names, *first_keys(located)]))[:MOST_COLUMNS]
    said = source.columns if isinstance(source.columns, dict) else {}
    own = {role: role for role in ROLES[kind] if role in names}
    mapping = said or known_columns(names, kind) or {**own, **side_columns(names, kind)}
    shown = [[_sample(row.get(name, "")) for name in names] for row in rows]
    return {"columns": names, "rows": shown, "roles": ROLES[kind], "mapping": mapping}


def _sample(value: Any) -> str:
    """A cell in little room."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SAMPLE else f"{text[: SAMPLE - 1]}…"
