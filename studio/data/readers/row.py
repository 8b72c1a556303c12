"""What all readers share: rows, their numbers and places, and the limits of one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from studio.errors import InputError

Row = dict[str, Any]
MAX_ROW_BYTES = 64 * 1024 * 1024


class RowNumber(int):
    """The number of a row that knows its file: what `read_rows` gives for the rows of a folder."""

    file: Path | None

    def __new__(cls, number: int, file: Path | None = None) -> RowNumber:
        """Return `number`, remembering `file`."""
        made = super().__new__(cls, number)
        made.file = file
        return made


class Mark(NamedTuple):
    """A place between two rows where reading can begin.

    Attributes:
        offset: bytes before it, of the unpacked file.
        number: number of the row before it.
        line: lines that end before it.
    """

    offset: int = 0
    number: int = 0
    line: int = 0


def place(path: Path | str, row: int | None = None, field: str = "") -> str:
    """Return "file, row N, field 'x'" for an error's `where`; the file is named by its last part.

    A row of a folder (`RowNumber`) names its own file.

    Args:
        path: of the file or folder.
        row: number from 1; None for the file as a whole.
        field: key in the row; empty for the row as a whole.
    """
    file = row.file if isinstance(row, RowNumber) else None
    parts = [Path(file or path).name]
    if row is not None:
        parts.append(f"row {row}")
    if field:
        parts.append(f"field '{field}'")
    return ", ".join(parts)


def too_long(path: Path, number: int, fix: str = "") -> InputError:
    """The error for a row that is larger than any row may be.

    Args:
        path: of the file.
        number: of the row, from 1.
        fix: empty for the usual advice.
    """
    return InputError(
        f"the row is longer than {MAX_ROW_BYTES // 2**20} MB",
        where=place(path, number),
        fix=fix or "Remove it, or check that each line has only one object",
    )
