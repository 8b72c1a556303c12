"""Columns with other names: which of them is the prompt, the answer, the label.

A mapping gives each role a column's name or a Jinja line over the columns; what comes out is a row that `rows` reads
like any other. Lines run in Jinja's sandbox, in a process of their own unless they are plain (`harmless`), and a name
that the row has not is an error, never an empty text. What the names of columns say is known to `column_names`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from studio.data.files.datafiles import place
from studio.data.files.where import as_truth, names_of
from studio.data.formats.harmless import is_harmless, names_in
from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.child import MAX_CHARACTERS, line_environment, too_long
from studio.data.sandbox.process import SANDBOX, Refusal
from studio.errors import InputError

Row = dict[str, Any]
_MAX_LINE = 20_000


class Columns:
    """A mapping, ready to be applied to rows.

    Args:
        mapping: role to column name or Jinja line; None or {} leaves rows as they are.
        optional: roles whose column may be missing from a row, which then has none.

    Raises:
        InputError: a line is not Jinja.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None, optional: Collection[str] = ()) -> None:
        self._optional = frozenset(optional)
        self._names: dict[str, str] = {}
        self._lines: dict[str, Callable[[Row, Budget], str]] = {}
        self._budget = Budget()
        self._read: set[str] = set()
        for role, value in (mapping or {}).items():
            if "{{" in value or "{%" in value:
                self._lines[role], read = _compile(role, value)
                self._read |= read
            else:
                self._names[role] = value
                self._read.add(value)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._names or self._lines)

    def apply(self, row: Row, number: int, path: Path | str) -> Row:
        """Return the row with its roles as keys; columns that nothing was read from keep their names.

        Args:
            row: as it is stored.
            number: of the row, from 1, for errors.
            path: of its file, for errors.

        Raises:
            InputError: the row lacks a column, or a line cannot be written out for it.
            OutOfBoundsError: a line takes too much time or memory.
        """
        if not self:
            return row
        mapped: Row = {}
        for role, column in self._names.items():
            if column not in row:
                if role in self._optional:
                    continue
                near = difflib.get_close_matches(column, map(str, row), n=1, cutoff=0.5)
                fix = f"Did you mean '{near[0]}'?" if near else f"Fix '{role}' in columns"
                keys = names_of(row)
                what = f"there is no column '{column}' for {role}; columns are: {keys}"
                raise InputError(what, where=place(path, number), fix=fix)
            mapped[role] = row[column]
        for role, line in self._lines.items():
            mapped[role] = _written(role, line, row, number, path, self._budget)
        if "label" in mapped:
            mapped["label"] = as_truth(mapped["label"])
        return mapped | {key: value for key, value in row.items() if key not in self._read and key not in mapped}


def _compile(role: str, line: str) -> tuple[Callable[[Row, Budget], str], set[str]]:
    """A Jinja line as a function of a row, and the names that it reads.

    One that only puts columns together is written here, any other in the sandbox.
    """
    from jinja2 import TemplateSyntaxError

    environment = line_environment()
    if len(line) > _MAX_LINE:
        raise InputError(
            f"the template for {role} has {len(line):,} characters, more than {_MAX_LINE:,}",
            where=f"data.train.columns.{role}", fix="Write a shorter template, or put the texts into the file",
        )  # fmt: skip
    try:
        tree = environment.parse(line)
        names = names_in(tree)
        template = environment.from_string(line) if is_harmless(tree) else None
    except (TemplateSyntaxError, RecursionError) as error:
        raise InputError(
            f"the template for {role} is not valid Jinja: {error}",
            where=f"data.train.columns.{role}",
            fix="Write columns in double braces, such as {{ title }}",
        ) from error

    def written(row: Row, budget: Budget) -> str:
        # `row` reaches the columns whose names are no Jinja names: {{ row["my column"] }}.
        values = {**{str(key): value for key, value in row.items()}, "row": row}
        if template is None:
            (text,) = SANDBOX.render("line", line, {}, [values], budget)
            if isinstance(text, Refusal):
                raise ValueError(text)
            return text
        text = template.render(values)
        if len(text) > MAX_CHARACTERS:
            raise ValueError(too_long())
        return text

    return written, names


def _written(
    role: str, line: Callable[[Row, Budget], str], row: Row, number: int, path: Path | str, budget: Budget
) -> str:
    try:
        return line(row, budget)
    except OutOfBoundsError as error:
        raise OutOfBoundsError(
            f"the template for {role} {error.what}", where=place(path, number, role), fix=f"Fix '{role}' in columns"
        ) from error
    except Exception as error:  # a line is a program of the person's; whatever it raises is about this row
        keys = names_of(row)
        what = f"the template for {role} cannot be rendered: {str(error).rstrip('.')}; columns are: {keys}"
        raise InputError(what, where=place(path, number, role), fix=f"Fix '{role}' in columns") from error
