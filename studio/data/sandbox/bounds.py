"""How much time and room the rendering and tokenizing of a row may take, and the error of what takes more.

Chat templates, lines over columns and the patterns of a tokenizer are programs of others. An ordinary one takes some
ten microseconds a row; one that takes seconds is broken or means harm, and no further row is tried with it.
"""

from __future__ import annotations

from studio.errors import InputError

ROW_SECONDS = 2.0
# On average: for each rendering, and by its size; a message of a hundred bytes takes Jinja 0.01 to 0.03 ms.
EACH_SECONDS = 0.01
_SECONDS_A_BYTE, _MOST_OF_SIZE = 1e-6, 0.2
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
    """The CPU seconds that a template may use: at most two at a time, which fill up again with each rendering.

    An ordinary rendering takes less than it adds, so the longest conversation, whose answers are searched by hundreds
    of renderings, comes through; what takes more each time soon has none left.
    """

    def __init__(self) -> None:
        self.left = ROW_SECONDS

    def begin(self, size: int) -> None:
        """Add what a rendering may take on average.

        Args:
            size: bytes of what is rendered.
        """
        self.left = min(ROW_SECONDS, self.left + EACH_SECONDS + min(_MOST_OF_SIZE, _SECONDS_A_BYTE * size))

    def spend(self, seconds: float) -> None:
        """Take off what was used."""
        self.left -= seconds
