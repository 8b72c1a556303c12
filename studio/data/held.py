"""The rows of a source, understood, in little memory: a run holds all of them until they are tokens.

Some hundreds together become one compressed block of bytes, half as large as their text in the file, where their
dictionaries would take several times as much. They come back in order, a block at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from studio.data.findings import Unread
from studio.data.formats import Example

BLOCK_ROWS = 256


def in_blocks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield examples some hundreds at a time."""
    rest = iter(examples)
    while block := list(itertools.islice(rest, BLOCK_ROWS)):
        yield block


class HeldExamples:
    """Examples in order.

    Attributes:
        first: the first of them; None if there are none.
        unread: their keys that were not read.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.first: Example | None = None
        self.unread = Unread()
        self._blocks: list[tuple[int, Any]] = []
        self._open: list[Example] = []
        self._places: list[tuple[int, str, bool]] = []
        self._said = hashlib.sha256()
        for example in examples:
            self.append(example)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def __iter__(self) -> Iterator[Example]:
        """Yield them one by one."""
        for block in self.blocks():
            yield from block

    def append(self, example: Example) -> None:
        """Take one more."""
        if self.first is None:
            self.first = example
        self.unread.add(example)
        one = example
        said = (one.messages, one.trained_from, one.tools, one.prompt, one.completion, one.text, one.rejected)
        self._said.update(repr((*said, one.label)).encode("utf-8", "surrogatepass"))
        self._places.append((example.row, example.path, example.rejected is not None))
        self._open.append(example)
        if len(self._open) == BLOCK_ROWS:
            self._blocks.append(_packed(self._open))
            self._open = []

    def blocks(self) -> Iterator[list[Example]]:
        """Yield them some hundreds at a time."""
        for block in self._blocks:
            yield _unpacked(block)
        if self._open:
            yield self._open

    def kept(self, wanted: Callable[[Example], bool]) -> HeldExamples:
        """Return those that are wanted."""
        return HeldExamples(one for one in self if wanted(one))

    def digest(self) -> bytes:
        """Return a hash of all that their tokens come from; where they stand is none of it."""
        return self._said.digest()

    def places(self) -> list[tuple[int, str, bool]]:
        """Return the row of each, its file's name, and whether it has two answers."""
        return self._places


def _packed(examples: list[Example]) -> tuple[int, Any]:
    """Examples as (bytes when unpacked, packed)."""
    import pyarrow as pa

    # Pickled by and for this process: it never leaves its memory.
    data = pickle.dumps([tuple(vars(one).values()) for one in examples], protocol=5)
    return len(data), pa.compress(data, "lz4", asbytes=True)


def _unpacked(block: tuple[int, Any]) -> list[Example]:
    import pyarrow as pa

    size, packed = block
    return [Example(*values) for values in pickle.loads(pa.decompress(packed, size, "lz4", asbytes=True))]
