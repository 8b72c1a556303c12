"""The event log: one JSON object a line, appended, read from a byte offset.

Reading costs what is new, not what the run has written so far. A writer that is killed may leave half a line:
readers wait for its newline, and the next writer ends it before it goes on. A line that is no event of ours (bytes of
a broken disk, another program's) becomes a notice, so that the readers have to trust no field.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from studio.errors import InputError
from studio.reach import append_in, open_in

PAGE_BYTES = 512 * 1024
# A longer line is read in pieces, none of which is an event.
LINE_BYTES = 1024 * 1024
UNREADABLE = "an event line is unreadable: a writer was killed in the middle of it, or the disk is damaged"
# What the readers calculate with; a field that may be left out may be None as well.
_NUMBERS = frozenset((
    "seq", "time", "step", "total_steps", "epoch", "epochs", "tokens", "elapsed", "eta", "done", "total", "memory_gb",
    "passed",
))  # fmt: skip
_TEXTS = frozenset(("kind", "phase", "state", "unit", "level", "text", "fix", "status", "reason"))
_NEEDED: dict[str, tuple[str, ...]] = {
    "metric": ("step",), "resume": ("step",), "ranks": ("step", "ranks"), "result": ("name", "values"),
}  # fmt: skip
_NO_NUMBERS = frozenset(("nan", "inf", "-inf"))
_ELSE: dict[str, dict[str, Any]] = {
    "phase": {"phase": "", "state": "progress", "done": 0.0, "total": None, "unit": ""},
    "metric": {"values": {}, "total_steps": None},
    "notice": {"level": "warning", "text": "", "fix": ""},
}


def read_events(path: Path, offset: int = 0, limit: int = PAGE_BYTES) -> tuple[list[dict[str, Any]], int]:
    """Read the whole lines after `offset`, at most about `limit` bytes of them.

    Args:
        path: of the event file; a missing one has no events.
        offset: in bytes, from the previous call; 0 for the beginning.
        limit: in bytes.

    Returns:
        The events, and the offset to ask for next time. An offset beyond the end (the file was replaced)
        starts again at 0.
    """
    lines, following = read_lines(path, offset, limit)
    return [_parse(line) for line in lines if line], following


def read_lines(path: Path, offset: int, limit: int = PAGE_BYTES) -> tuple[list[bytes], int]:
    """Read the whole lines after `offset` without their ends; the same rules as `read_events`.

    A line longer than a page and than `LINE_BYTES` comes in pieces. A link, a pipe or a file that may not be read is as
    good as none.

    Args:
        path: of a text file that is only appended to.
        offset: in bytes, from the previous call.
        limit: in bytes, a page.
    """
    try:
        with open_in(path.parent, path.name) as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0 if offset < 0 or offset > size else offset
            file.seek(offset)
            chunk = file.read(limit)
            if len(chunk) == limit and b"\n" not in chunk:
                chunk += file.readline(max(0, LINE_BYTES - limit))  # one line longer than a page
    except (FileNotFoundError, PermissionError, InputError):
        return [], 0
    end = chunk.rfind(b"\n") + 1
    if not end and len(chunk) >= LINE_BYTES:
        end = len(chunk)
    return chunk[:end].splitlines(), offset + end


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = from_json(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and _sound(event):
        return event
    return {"seq": -1, "time": 0.0, "kind": "notice", "level": "warning", "text": UNREADABLE, "fix": ""}


def _sound(event: dict[str, Any]) -> bool:
    """Whether an event has what its kind needs, and a value of the right type in every field that readers use."""
    kind = event.get("kind")
    if not isinstance(kind, str):
        return False
    needed = _NEEDED.get(kind, ())
    for name, value in {"seq": 0, "time": 0.0, **_ELSE.get(kind, {})}.items():
        event.setdefault(name, value)
    for name in needed:
        if event.get(name) is None:
            return False
    for name, value in event.items():
        if name in _NUMBERS:
            right = _finite(value) or (value is None and name not in ("seq", "time"))
        elif name in _TEXTS or (name == "name" and kind == "result"):
            right = isinstance(value, str)
        elif name == "ranks":
            right = isinstance(value, list) and all(map(_figures, value))
        elif name == "values" and needed:
            right = isinstance(value, dict) and (kind != "metric" or all(map(_shown, value.values())))
        else:
            continue
        if not right:
            return False
    return True


def _figures(value: Any) -> bool:
    """What one rank of a run does: numbers by name, None for what is not known."""
    return isinstance(value, dict) and all(one is None or _finite(one) for one in value.values())


def _finite(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= 2**53
    return isinstance(value, float) and math.isfinite(value)


def _shown(value: Any) -> bool:
    """A number of a curve: NaN and infinity come as text."""
    return _finite(value) or isinstance(value, float) or (isinstance(value, str) and value.lower() in _NO_NUMBERS)


class EventWriter:
    """Appends events of one job. One writer at a time; its threads may share it.

    Raises:
        OSError: the log cannot be written.
        InputError: a link or a pipe is in its place.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = append_in(path.parent, path.name)
        self._seq = _last_seq(path)
        if not _ends_with_newline(path):
            self._file.write(b"\n")

    def write(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Append one event and return it with its `seq` and `time`.

        Raises:
            OSError: the disk is full or broken; the log stays as it was.
        """
        with self._lock:
            event = {"seq": self._seq + 1, "time": round(time.time(), 3), "kind": kind, **fields}
            line = json.dumps(event, ensure_ascii=False, default=float).encode(errors="replace") + b"\n"
            before = os.fstat(self._file.fileno()).st_size
            try:
                written = self._file.write(line)
                while written < len(line):  # a disk that gets full takes a part first and refuses the rest
                    written += self._file.write(line[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), before)
                raise
            self._seq += 1
            return event

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with open_in(path.parent, path.name) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _last_seq(path: Path) -> int:
    """The highest `seq` written so far: that of the last whole event, since it grows."""
    end = path.stat().st_size
    while end > 0:
        begin = max(0, end - PAGE_BYTES)
        lines, _ = read_lines(path, begin, end - begin)
        found = max((int(_parse(line)["seq"]) for line in lines if line), default=-1)
        if found >= 0:
            return found
        end = begin
    return 0
