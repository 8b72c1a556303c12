"""The tokens of a shard's rows on disk, written row by row in whatever order the training comes to them.

A file of numbers that only grows, and for each row where it lies in it: 0 is nowhere yet. One process at a time writes;
others read what is there and make the rest themselves. A row that was written half, by a machine that went down, does
not match its sum and is made again.

    ids and runs of a row:  [row, ids, runs, notes, sum] id id id … begin end begin end …
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.data.prepare.compact import kept
from studio.data.prepare.findings import NOTES
from studio.data.prepare.units import Encoded

_HEAD = 5  # numbers before a row's ids
_BYTES = 4  # of a number
_NOTES = tuple(NOTES)

logger = logging.getLogger(__name__)


class TokenStore:
    """The tokens of the rows of one shard with one masker.

    Args:
        folder: of the store; made if it is not there.
        count: rows of the shard.

    Attributes:
        writes: whether this process is the one that writes.
    """

    def __init__(self, folder: Path, count: int) -> None:
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        with contextlib.suppress(Timeout):  # another process writes
            self._lock.acquire(timeout=0)
        self.writes = self._lock.is_locked
        place, data = folder / "places", folder / "tokens"
        if self.writes and (not place.is_file() or place.stat().st_size != _BYTES * 2 * count):
            with place.open("wb") as file:  # a hole, which takes no room
                file.truncate(_BYTES * 2 * count)
        self._data = data.open("a+b", buffering=0)
        self._end = data.stat().st_size
        self._places: Any = None
        if count and place.is_file() and place.stat().st_size == _BYTES * 2 * count:
            self._places = np.memmap(place, dtype="<u8", mode="r+" if self.writes else "r", shape=(count,))

    def close(self) -> None:
        """Let another process write."""
        self._data.close()
        self._lock.release()

    def read(self, at: int, number: int, path: str) -> Encoded | None:
        """Return the tokens of the row at a place; None where they have to be made.

        Args:
            at: place of the row in the shard, from 0.
            number, path: of the row, as errors name it.
        """
        begin = 0 if self._places is None else int(self._places[at])
        if not begin:
            return None
        head = array("i")
        self._data.seek(begin - 1)
        raw = self._data.read(_BYTES * _HEAD)
        if len(raw) < _BYTES * _HEAD:
            return None
        head.frombytes(raw)
        row, ids, runs, notes, said = head
        if row != at or ids < 0 or runs < 0:
            return None
        body = self._data.read(_BYTES * (ids + runs))
        if len(body) != _BYTES * (ids + runs) or _sum(body) != said:
            return None
        numbers: Any = array("i")
        numbers.frombytes(body)
        told = tuple(note for bit, note in enumerate(_NOTES) if notes >> bit & 1)
        return Encoded(numbers[:ids], numbers[ids:], number, path, told)

    def write(self, places: Sequence[int], units: Sequence[Encoded]) -> None:
        """Keep the tokens of some rows; where the disk is full they are made again when they are needed.

        Args:
            places: (N,) of the rows in the shard, from 0.
            units: (N,) their tokens.
        """
        if not self.writes or self._places is None:
            return
        data, begins = bytearray(), []
        for at, unit in zip(places, units, strict=True):
            ids, runs = kept(unit, "input_ids"), kept(unit, "labels")
            body = ids.tobytes() + runs.tobytes()
            notes = sum(1 << _NOTES.index(note) for note in dict.fromkeys(unit.notes) if note in _NOTES)
            begins.append(self._end + len(data) + 1)
            data += array("i", [at, len(ids), len(runs), notes, _sum(body)]).tobytes() + body
        try:
            written = self._data.write(data) or 0
        except OSError as error:
            written = 0
            logger.warning("the tokens could not be kept: %s", error)
        if written < len(data):
            self.writes = False
        else:
            for at, begin in zip(places, begins, strict=True):
                self._places[at] = begin
        self._end += written


def _sum(body: bytes) -> int:
    return zlib.crc32(body) & 0x7FFFFFFF
