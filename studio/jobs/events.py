"""The event log: one JSON object a line, appended, read from a byte offset.

Reading costs what is new, not what the run has written so far. A writer that is killed may leave half a line:
readers wait for its newline, and the next writer ends it before it goes on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

PAGE_BYTES = 512 * 1024


def read_events(path: Path, offset: int = 0, limit: int = PAGE_BYTES) -> tuple[list[dict[str, Any]], int]:
    """Read the whole lines after `offset`, at most about `limit` bytes of them.

    Returns:
        The events, and the offset to ask for next time. An offset beyond the end (the file was replaced)
        starts again at 0.
    """
    lines, following = read_lines(path, offset, limit)
    return [_parse(line) for line in lines], following


def read_lines(path: Path, offset: int, limit: int = PAGE_BYTES) -> tuple[list[bytes], int]:
    """Read the whole lines after `offset` without their ends; the same rules as `read_events`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0 if offset < 0 or offset > size else offset
            file.seek(offset)
            chunk = file.read(limit)
            if len(chunk) == limit and b"\n" not in chunk:
                chunk += file.readline()  # one line longer than a page
    except FileNotFoundError:
        return [], 0
    end = chunk.rfind(b"\n") + 1
    return chunk[:end].splitlines(), offset + end


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    except ValueError:  # half a line of a killed writer; UnicodeDecodeError is a ValueError too
        event = None
    text = "an event line is unreadable: a writer was killed in the middle of it"
    return {"seq": -1, "time": 0.0, "kind": "notice", "level": "warning", "text": text, "fix": ""}


class EventWriter:
    """Appends events of one job. One writer at a time; its threads may share it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        self._seq = _last_seq(path)
        if not _ends_with_newline(path):
            self._file.write(b"\n")

    def write(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Append one event and return it with its `seq` and `time`."""
        with self._lock:
            self._seq += 1
            event = {"seq": self._seq, "time": round(time.time(), 3), "kind": kind, **fields}
            self._file.write(json.dumps(event, ensure_ascii=False, default=float).encode() + b"\n")
            return event

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _last_seq(path: Path) -> int:
    """The highest `seq` written so far; only the last page needs to be read, since it grows."""
    size = path.stat().st_size
    lines, _ = read_lines(path, max(0, size - PAGE_BYTES), PAGE_BYTES)
    return max((int(_parse(line).get("seq", 0)) for line in lines), default=0) if lines else 0
