"""How the rows of a source become examples: mapped, their format found, understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.config.data import DataSource
from studio.config.method import RowKind
from studio.data.columns import Columns
from studio.data.formats import Example, FormatName
from studio.data.locate import Located
from studio.data.rows import detect, parse_row
from studio.data.sources import Row


def source_named(data: Mapping[str, Any], path: str) -> DataSource:
    """Return a run's own source of that path, with its mapping of columns; else one that has only the path.

    Args:
        data: section `data` of the run, plain values.
        path: as the run has it, or where its file is.
    """
    for values in data.get("train") or []:
        if values.get("path") == path:
            return DataSource.model_validate(values)
    return DataSource(path=path)


class Reading:
    """Reads the rows of one source for one kind of method.

    Args:
        source: as the configuration gives it.
        located: where its rows are.
        kind: what the method learns from.

    Raises:
        InputError: a line of the columns' mapping is not Jinja.
    """

    def __init__(self, source: DataSource, located: Located, kind: RowKind) -> None:
        # The validators of `DataSource` have made dicts of the texts.
        self._columns = Columns(source.columns if isinstance(source.columns, dict) else None)
        self._tags = source.tags if isinstance(source.tags, dict) else {}
        self._source, self._located, self._kind = source, located, kind

    def mapped(self, row: Row, number: int) -> Row:
        """Return a stored row in a format of the studio: as dataset_info.json and the columns' mapping say."""
        path = self._located.path
        return self._columns.apply(self._located.studio_row(row, number, self._kind), number, path)

    def format(self, first: Sequence[tuple[int, Row]]) -> tuple[FormatName, str]:
        """Return the source's format and why: its own ("" then), or what the keys of the first rows say.

        Raises:
            InputError: no format that the method can use has these keys.
        """
        if self._source.format != "auto":
            return self._source.format, ""
        shown = [(number, self.mapped(row, number)) for number, row in first]
        found = detect(shown, self._located.path, self._kind)
        return found.format, found.reason

    def example(self, row: Row, number: int, format: FormatName) -> Example:
        """Return what a stored row means.

        Raises:
            InputError: the row cannot be used.
        """
        return parse_row(self.mapped(row, number), number, self._located.path, format, self._kind, self._tags)
