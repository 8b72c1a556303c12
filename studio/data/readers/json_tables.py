"""JSON that holds a table by its columns, as `DataFrame.to_json` writes it when it is not asked for rows.

Such a file is one object (or a list of lists), so all of it would have to be in memory before its first row; it is
refused with the command that turns it into rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.errors import InputError

# Keys of a row whose values may be objects alike, and keys of such objects.
_OF_ROWS = {"prompt", "completion", "chosen", "rejected", "messages", "conversations"}
_OF_MESSAGES = {"role", "from", "type"}


def table_error(value: Any, path: Path) -> InputError | None:
    """Return the error for a value that is a table by its columns; None if it is none."""
    if (how := _how(value)) is None:
        return None
    orient, what = how
    # Without the two, pandas would make numbers of texts such as 007, and dates of others.
    read = f"pandas.read_json({path.name!r}, orient={orient!r}, dtype=False, convert_dates=False)"
    command = f"import pandas; {read}.to_json('rows.jsonl', orient='records', lines=True)"
    return InputError(what, where=str(path), fix=f'Convert it to rows: `python -c "{command}"`')


def _how(value: Any) -> tuple[str, str] | None:
    """How pandas calls the shape of a table, and a sentence for it."""
    if not isinstance(value, dict) or not value:
        return None
    columns = list(value.values())
    if {"columns", "data"} <= value.keys() and _are_lists(value["data"]):
        return "split", "the file stores the column names separately from the rows"
    count = len(columns[0]) if isinstance(columns[0], (list, dict)) else 0
    if not count:
        return None
    if all(isinstance(one, list) and len(one) == count for one in columns):
        # A list of texts under the name of a conversation is meant as its turns.
        said = any(isinstance(one[0], str) for key, one in value.items() if key in ("messages", "conversations"))
        if not said and all(_is_cell(cell) for one in columns for cell in one):
            return "columns", _by_columns(value, count)
    elif all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns):
        if all(key.isdigit() for key in columns[0]):
            return "columns", _by_columns(value, count)
        if len(value) > 1 and not (_OF_ROWS & value.keys() or _OF_MESSAGES & columns[0].keys()):
            return "index", f"the file holds {len(value):,} rows keyed by number or name, not a list"
    return None


def _is_cell(value: Any) -> bool:
    """Whether a list may hold this as a cell of its column; a list of objects would be the messages of one row."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, dict) for one in value)
    return not isinstance(value, dict)


def _by_columns(value: dict[str, Any], count: int) -> str:
    names = ", ".join(str(name)[:40] for name in list(value)[:8])
    return f"the file holds columns ({names}) of {count:,} values each, not rows"


def _are_lists(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], list)
