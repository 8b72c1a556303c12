"""Answers that many viewers of one job ask for: made once while the files that they are made of stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

ONE_BYTES = 64 * 1024
ALL_BYTES = 8 * 1024 * 1024

Stamp = tuple[int, ...]


class KeptAnswers:
    """The answers used last, by what was asked. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Stamp, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, asked: Hashable, stamp: Stamp, make: Callable[[], tuple[bytes, bool]]) -> bytes:
        """Return the answer to `asked`.

        Args:
            asked: what was asked.
            stamp: differs once one of the files behind the answer has changed; taken before they are read.
            make: makes the answer, and says whether it may be kept.
        """
        with self._lock:
            found = self._kept.get(asked)
            if found is not None and found[0] == stamp:
                self._kept.move_to_end(asked)
                return found[1]
        answer, keep = make()
        if keep and len(answer) <= ONE_BYTES:
            with self._lock:
                self._bytes += len(answer) - len(self._kept.pop(asked, ((), b""))[1])
                self._kept[asked] = (stamp, answer)
                while self._bytes > ALL_BYTES:
                    self._bytes -= len(self._kept.popitem(last=False)[1][1])
        return answer


def file_stamp(*paths: Path) -> Stamp:
    """What differs once one of the files was appended to, replaced, made or removed."""
    stamp: list[int] = []
    for path in paths:
        try:
            found = path.stat()
            stamp += (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            stamp.append(-1)
    return tuple(stamp)
