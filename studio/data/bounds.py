"""How much time and room the rendering and tokenizing of a row may take, and the error of what takes more.

Chat templates, lines over columns and the patterns of a tokenizer are programs of others. An ordinary one takes some
ten microseconds a row; one that takes seconds is broken or means harm, and no further row is tried with it.
"""

from __future__ import annotations

from studio.errors import InputError

ROW_SECONDS = 2.0
# On average over many rows.
EACH_SECONDS = 0.01
# Characters of a row that is tokenized: about two million tokens, which take some hundred megabytes at a time.
MAX_TOKENIZED = 8 * 1024**2


class OutOfBoundsError(InputError):
    """A template or a tokenizer took more time or memory than it may have; the work ends with it.

    Attributes:
        at: place of the row among those that were given, from 0.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", at: int = 0) -> None:
        super().__init__(what, where=where, fix=fix)
        self.at = at

    def placed(self, where: str) -> OutOfBoundsError:
        """Return it with the place of its row."""
        return OutOfBoundsError(self.what, where=where, fix=self.fix, at=self.at)


class Budget:
    """The CPU seconds that a template may still use: two for a row, and 10 ms for each on average."""

    def __init__(self) -> None:
        self._rows = 0
        self._used = self._of_row = 0.0

    def next_row(self, rows: int = 1) -> None:
        """Begin with a row, or with several that are rendered in one go."""
        self._rows += rows
        self._of_row = 0.0

    def spend(self, seconds: float) -> None:
        """Take off what was used."""
        self._used += seconds
        self._of_row += seconds

    @property
    def left(self) -> float:
        """Seconds that the row may still take."""
        return min(ROW_SECONDS - self._of_row, ROW_SECONDS + EACH_SECONDS * self._rows - self._used)
