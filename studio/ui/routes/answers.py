"""How our own routes answer: JSON that every browser reads, files that are open already, errors by their sentence.

An answer that many viewers of one job ask for is made once while the files that it is made of stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fastapi import HTTPException
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from studio.errors import InputError, StudioError
from studio.locks import HeldError
from studio.reach import descriptor_path

NEVER_KEPT = {"cache-control": "no-store"}
ONE_BYTES = 64 * 1024
ALL_BYTES = 8 * 1024 * 1024

Stamp = tuple[int, ...]


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Answer an error that a person is meant to read by its sentence: 409 for what they can mend, else 500."""
    try:
        yield
    except StudioError as error:
        raise HTTPException(409 if isinstance(error, InputError | HeldError) else 500, error.sentence) from error


class Json(Response):
    """JSON that is valid for a browser whatever a job wrote, and never kept: NaN and infinity become text."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, {**NEVER_KEPT, **(headers or {})})

    def render(self, content: Any) -> bytes:
        """Encode `content`; bytes are JSON already."""
        if isinstance(content, bytes):
            return content
        try:
            return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")
        except ValueError:
            return json.dumps(_finite(content), ensure_ascii=False).encode("utf-8", errors="replace")


class HeldFile(FileResponse):
    """A download of a file that is open already, so that what is sent is what was looked at; closes it at the end."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        super().__init__(
            descriptor_path(file.fileno()), filename=name, media_type="application/octet-stream",
            stat_result=os.fstat(file.fileno()),
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


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


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
