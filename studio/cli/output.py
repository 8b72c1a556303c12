"""Two ways to answer: a line or table for a person, or one JSON object for a script.

All text goes to the terminal through here: names, rows, logs and answers are of others, and none may move its cursor.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from studio.errors import InputErrors, StudioError
from studio.escaping import for_terminal, json_for_terminal

#: Exit code of a command that did its work, though something of what it was given was left out.
LEFT_OUT = 3
#: Everything that is not the answer: progress, notices, errors.
stderr = Console(stderr=True, highlight=False)
# A table in a file or pipe is read by programs too: no id is cut to a terminal's width that is not there.
_WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 240
stdout = Console(highlight=False, soft_wrap=True, width=_WIDE)


def answer(as_json: bool, values: dict[str, Any], text: str | Table) -> None:
    """Print the result: `values` as JSON, or `text` for a person.

    Args:
        as_json: the command's --json.
        values: of the result, for a program.
        text: of the result, for a terminal; control characters are escaped.
    """
    if as_json:
        print(json_for_terminal(json.dumps(values, ensure_ascii=False, default=str)))
    elif isinstance(text, Table):
        stdout.print(text)
    else:
        stdout.print(for_terminal(text), markup=False)


def say(text: str) -> None:
    """Tell the person something beside the answer."""
    stderr.print(for_terminal(text), markup=False, soft_wrap=True)


def write(text: str) -> None:
    """Print text of others as it is (a log, an answer, a table of text), but for what a terminal would obey."""
    sys.stdout.write(for_terminal(text.replace("\r\n", "\n").replace("\r", "\n")))
    sys.stdout.flush()


def phase_line(name: str, done: float, total: float | None) -> str:
    """A phase that services report, for a line that is drawn again and again: "tokenizing 256 of 560".

    Args:
        name: of the phase.
        done, total: counts in the phase's unit; a total of None is left out.
    """
    return f"{escape(for_terminal(name))} {done:,.0f}" + (f" of {total:,.0f}" if total else "")


def report_error(error: StudioError, as_json: bool) -> None:
    """Print an error's sentence, and its parts as JSON where a script listens."""
    if as_json:
        errors = error.errors if isinstance(error, InputErrors) else [error]
        body = {"error": {**error.as_dict(), "exit_code": error.exit_code}, "errors": [one.as_dict() for one in errors]}
        print(json_for_terminal(json.dumps(body, ensure_ascii=False)))
    print(for_terminal(error.sentence), file=sys.stderr)


def table(*columns: str, rows: list[tuple[Any, ...]]) -> Table:
    """Make a plain table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(Text(for_terminal(column)), overflow="fold")
    for row in rows:
        made.add_row(*(Text(for_terminal(str(cell))) for cell in row))  # not markup: a reason may hold brackets
    return made
