"""What the rows of a set look like, as far as that can be seen without fetching anything."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from studio.config.data import DataSource
from studio.data.formats.rows import detect
from studio.data.sources.locate import locate
from studio.errors import StudioError
from studio.methods import RowKind
from studio.settings import read_settings

_OF_COLUMNS = (("messages", "messages"), ("text", "text"), ("prompt", "prompt_completion"),
               ("instruction", "instruction"))  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Rows of a set.

    Attributes:
        path: the file, or the Hub's id.
        is_file: whether it is a file, which has no splits.
        format: how a row is written; "messages" where nobody knows.
        keys: of the first row; empty where it cannot be seen.
    """

    path: str
    is_file: bool
    format: str
    keys: tuple[str, ...] = ()


def shape_of(source: DataSource, kind: RowKind) -> Shape:
    """Look at the first row of a set that is here.

    Args:
        source: one of `data.train`.
        kind: what the method learns from.
    """
    named = source.format if source.format != "auto" else ""
    columns = source.columns if isinstance(source.columns, dict) else {}
    by_columns = next((format for role, format in _OF_COLUMNS if role in columns), "")
    try:
        located = locate(source, read_settings())
        first = [(number, located.studio_row(row, number, kind)) for number, row in islice(located.rows(0), 1)]
    except (StudioError, OSError, ValueError):
        is_file = source.path.endswith((".jsonl", ".json", ".csv", ".parquet", ".txt", ".md"))
        text = source.path.endswith((".txt", ".md"))
        return Shape(source.path, is_file, named or by_columns or ("text" if text else "messages"))
    is_file = not located.commit
    path = str(located.files[0]) if is_file and len(located.files) == 1 else source.path
    keys = tuple(map(str, first[0][1])) if first else ()
    if not named and not by_columns:
        try:
            named = detect(first, located.path, kind).format
        except StudioError:
            named = "messages"
    return Shape(path, is_file, named or by_columns, keys)
