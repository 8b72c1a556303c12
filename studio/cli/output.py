"""Two ways to answer: a line or table for a person, or one JSON object for a script.

All text goes to the terminal through here: names, rows, logs and answers are of others, and none may move its cursor.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from studio.errors import InputErrors, StudioError
from studio.escaping import for_terminal, json_for_terminal

#: Exit code of a command that did its work, though something of what it was given was left out.
LEFT_OUT = 3
_answered = False  # whether this command has given its answer, of which there is one


class _Console(Console):
    """A console whose reader may leave, as `head -1` does: the command goes on without it."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        _leave(self.file)


#: Everything that is not the answer: progress, notices, errors.
stderr = _Console(stderr=True, highlight=False)
# A table in a file or pipe is read by programs too: no id is cut to a terminal's width that is not there.
_WIDE = None if (sys.stdout is not None and sys.stdout.isatty()) or "COLUMNS" in os.environ else 240
stdout = _Console(highlight=False, soft_wrap=True, width=_WIDE)


def settle_streams() -> None:
    """Make both outputs such that every text can be written: one that was closed (`>&-`) leads nowhere.

    What an output's encoding lacks is written out, such as \\xe9, instead of being an error.
    """
    global _answered
    _answered = False
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The system gives the lowest number that is free: that of the closed one, so no other file takes it.
            found = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(found, True)
            setattr(sys, name, os.fdopen(found, "w" if number else "r", encoding="utf-8"))
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def answer(as_json: bool, values: dict[str, Any], text: str | Table) -> None:
    """Print the result: `values` as JSON, or `text` for a person.

    Args:
        as_json: the command's --json.
        values: of the result, for a program.
        text: of the result, for a terminal; control characters are escaped.

    Raises:
        StudioError: it cannot be written.
    """
    global _answered
    _answered = True
    if as_json:
        _put(_json(values))
    elif isinstance(text, Table):
        with _writing():
            stdout.print(text)
    else:
        with _writing():
            stdout.print(for_terminal(text), markup=False)


def say(text: str) -> None:
    """Tell the person something beside the answer."""
    with contextlib.suppress(OSError):  # a full disk behind `2>`: there is nobody to tell
        stderr.print(for_terminal(text), markup=False, soft_wrap=True)


def write(text: str) -> None:
    """Print text of others as it is (a log, an answer, a table of text), but for what a terminal would obey.

    Raises:
        StudioError: it cannot be written.
    """
    _put(for_terminal(text.replace("\r\n", "\n").replace("\r", "\n")))


def _put(text: str) -> None:
    with _writing():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Writes to stdout within it.

    Raises:
        StudioError: what was written did not arrive, but for a reader who has left, such as `head -1`.
    """
    try:
        yield
    except BrokenPipeError:
        _leave(sys.stdout)
    except OSError as error:
        _leave(sys.stdout)  # or what waits in its buffer fails once more at the end of the process
        raise StudioError(
            f"the answer cannot be written ({error.strerror or error})", where="stdout",
            fix="Check where the output goes, and the free space there",
        ) from error  # fmt: skip


def _leave(stream: TextIO | Any) -> None:
    """Let an output lead nowhere from now on, with what its buffer holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _json(values: dict[str, Any]) -> str:
    """One line of JSON; only ASCII where the output has no letter but these, since JSON has a form for all others."""
    plain = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    return json_for_terminal(json.dumps(values, ensure_ascii=plain, default=str)) + "\n"


def phase_line(name: str, done: float, total: float | None) -> str:
    """A phase that services report, for a line that is drawn again and again: "tokenizing 256 of 560".

    Args:
        name: of the phase.
        done, total: counts in the phase's unit; a total of None is left out.
    """
    return f"{escape(for_terminal(name))} {done:,.0f}" + (f" of {total:,.0f}" if total else "")


def has_answered() -> bool:
    """Whether the command has given its answer."""
    return _answered


def report_error(error: StudioError, as_json: bool) -> None:
    """Print an error's sentence, and its parts as JSON where a script listens that has no answer yet."""
    if as_json and not _answered:
        errors = error.errors if isinstance(error, InputErrors) else [error]
        body = {"error": {**error.as_dict(), "exit_code": error.exit_code}, "errors": [one.as_dict() for one in errors]}
        with contextlib.suppress(StudioError):  # it is on stderr too
            _put(_json(body))
    complain(error.sentence)


def complain(text: str) -> None:
    """Print what went wrong on stderr."""
    try:
        print(for_terminal(text), file=sys.stderr, flush=True)
    except OSError:  # nobody reads it
        _leave(sys.stderr)


def table(*columns: str, rows: list[tuple[Any, ...]]) -> Table:
    """Make a plain table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(Text(for_terminal(column)), overflow="fold")
    for row in rows:
        made.add_row(*(Text(for_terminal(str(cell))) for cell in row))  # not markup: a reason may hold brackets
    return made
