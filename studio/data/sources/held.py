"""The rows of a source, understood, in little memory: a run holds all of them until they are tokens.

Some hundreds together, or fewer where they are long, become one compressed block of bytes, half as large as their text
in the file, where their dictionaries would take several times as much. They come back in order, a block at a time.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from studio.data.formats.answers import Example, Unread

BLOCK_ROWS = 256
# Of a block's texts together: its tokens, as the library gives them, take some hundred times as many bytes as arrays.
BLOCK_CHARACTERS = 1 << 18
_One = TypeVar("_One")


def characters(example: Example | None) -> int:
    """Return about how many characters an example has, which is what its tokens take."""
    if example is None:
        return 0
    rejected = example.rejected
    texts = [example.text, example.prompt, example.completion, rejected if isinstance(rejected, str) else None]
    turns = [*(example.messages or ()), *(rejected if isinstance(rejected, list) else ())]
    size = sum(len(text) for text in texts if text) + sum(len(turn["content"]) for turn in turns)
    return size + len(str(example.tools)) if example.tools else size


def in_blocks(rows: Iterable[_One], size: Callable[[_One], int], most: int = BLOCK_ROWS) -> Iterator[list[_One]]:
    """Yield rows some hundreds at a time, fewer where they are long.

    Args:
        rows: anything that stands for rows.
        size: how many characters one has (`characters`).
        most: rows in a block at most.
    """
    block: list[_One] = []
    held = 0
    for one in rows:
        block.append(one)
        held += size(one)
        if len(block) == most or held >= BLOCK_CHARACTERS:
            yield block
            block, held = [], 0
    if block:
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
        self._places: list[tuple[int, str, bool]] = []
        self._said = hashlib.sha256()
        for block in in_blocks(examples, characters):
            for example in block:
                self._note(example)
            self._blocks.append(_packed(block))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def __iter__(self) -> Iterator[Example]:
        """Yield them one by one."""
        for block in self.blocks():
            yield from block

    def _note(self, example: Example) -> None:
        if self.first is None:
            self.first = example
        self.unread.add(example)
        one = example
        said = (one.messages, one.trained_from, one.tools, one.prompt, one.completion, one.text, one.rejected)
        self._said.update(repr((*said, one.label)).encode("utf-8", "surrogatepass"))
        self._places.append((example.row, example.path, example.rejected is not None))

    def blocks(self) -> Iterator[list[Example]]:
        """Yield them some hundreds at a time."""
        for block in self._blocks:
            yield _unpacked(block)

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
