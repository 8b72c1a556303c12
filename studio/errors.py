"""The errors that a person is meant to read.

Every one is a sentence: what is wrong, where (file, row, field) and what to do. The command line turns the
class into an exit code, the page shows the same sentence. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations

from typing import Any


class StudioError(Exception):
    """Something failed that the person could not have typed differently (exit code 1).

    Args:
        what: what is wrong, with the value that is wrong.
        where: file, row, field or setting.
        fix: what to do about it, naming the setting.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = map(_whole, (what.rstrip("."), where, fix.rstrip(".")))
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """All three parts as one line of text."""
        place = f"{self.where}: " if self.where else ""
        return f"{place}{_ended(self.what)}{' ' + _ended(self.fix) if self.fix else ''}"

    def as_dict(self) -> dict[str, str]:
        """The parts for JSON output and for the page."""
        return {"what": self.what, "where": self.where, "fix": self.fix, "sentence": self.sentence}


def _whole(text: str) -> str:
    """The text without halves of characters, which no page, terminal or file of JSON can hold."""
    return text.encode(errors="replace").decode()


def _ended(text: str) -> str:
    return text if text.endswith(("?", "!")) else f"{text}."


class FailedRunError(StudioError):
    """A run cannot go on, and other options may keep the next one alive (exit code 1).

    Args:
        what: what happened.
        fix: what to do about it.
        change: options to change, by dotted name; a button starts a run with them.
    """

    def __init__(self, what: str, *, fix: str, change: dict[str, Any]) -> None:
        super().__init__(what, fix=fix)
        self.change = change


class InputError(StudioError):
    """What was given is wrong: a value, a file, a row, a name (exit code 2)."""

    exit_code = 2


class InputErrors(InputError):
    """Several wrong inputs at once, so that one attempt shows them all."""

    def __init__(self, errors: list[InputError]) -> None:
        self.errors = errors
        super().__init__(errors[0].what, where=errors[0].where, fix=errors[0].fix)

    @property
    def sentence(self) -> str:
        """One line for each error."""
        return "\n".join(error.sentence for error in self.errors)


class StoppedError(StudioError):
    """The person asked to stop (exit code 130)."""

    exit_code = 130
