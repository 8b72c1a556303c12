"""What a row is once it is masked: its tokens, which of them count, and each of them as a person sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from studio.data.files.datafiles import place
from studio.data.formats.answers import Example
from studio.data.masks.overlay import Runs, counted, labels_of
from studio.data.sandbox.bounds import MAX_TOKENIZED, OutOfBoundsError
from studio.errors import InputError


@dataclass
class Masked:
    """An example as tokens, before any cut.

    Attributes:
        input_ids: (T,) token ids.
        trained: runs of the places where the loss counts.
        row, path: where the example came from.
        notes: what is worth a finding: "straddling", "rewritten", "prompt_extra", "header",
            "other_context", "control", "no_stop", "lost", "turns", "no_question".
        text: the text that the tokens tile.
    """

    input_ids: list[int]
    trained: Runs
    row: int
    path: str
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False)
    _ends: Callable[[], list[int]] = field(default=list, repr=False, compare=False)

    @property
    def labels(self) -> list[int]:
        """(T,) the ids where the loss counts, -100 elsewhere."""
        return labels_of(self.input_ids, self.trained)

    @property
    def ends(self) -> list[int]:
        """(T,) character at which each token ends in `text`; an added BOS or EOS has no characters."""
        return self._ends()

    @property
    def supervised(self) -> int:
        """Number of tokens that the loss counts."""
        return counted(self.trained)


@dataclass(frozen=True)
class Piece:
    """One token as a person sees it. A character made of several tokens is shown at its first."""

    text: str
    id: int
    trained: bool
    special: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.text, "id": self.id, "trained": self.trained, "special": self.special}


@contextlib.contextmanager
def placed(example: Example, text: str) -> Iterator[None]:
    """Within this block the text of a row is tokenized: what the tokenizer cannot do is said of the row.

    Raises:
        InputError: the text is too long.
        OutOfBoundsError: the tokenizer takes too long.
    """
    require_short(example, text)
    try:
        yield
    except OutOfBoundsError as error:
        raise error.placed(place(example.path, example.row)) from error


def require_short(example: Example, *texts: str) -> None:
    """Refuse texts that are too long to be tokenized at once.

    Raises:
        InputError: they are.
    """
    characters = sum(map(len, texts))
    if characters > MAX_TOKENIZED:
        raise InputError(
            f"the row has {characters:,} characters, more than the {MAX_TOKENIZED:,} that can be tokenized at once",
            where=place(example.path, example.row),
            fix="Split it into several rows",
        )
