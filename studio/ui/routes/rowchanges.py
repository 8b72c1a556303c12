"""What a page that polls is told of the list of jobs: only the rows that changed since its last answer.

With ten thousand jobs the whole list is megabytes; a change of one run is a few hundred bytes. `KeptRows` lets a new
web process begin with the rows that the last one had made of jobs that are over.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import __version__
from studio.jobs.store.files import read_json, write_atomic
from studio.jobs.views.index import FEW

Row = dict[str, Any]
GONE_KEPT = 1000
SAVE_SECONDS = 60.0


class Changes:
    """At which version each row last changed. Versions of another process are unknown here: they give everything."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._version = self._oldest = 0  # from `_oldest` on it is known which jobs went away
        self._at: OrderedDict[str, int] = OrderedDict()  # the last changed one last
        self._gone: OrderedDict[str, int] = OrderedDict()

    def note(self, changed: list[str], gone: list[str]) -> None:
        """Take in what one look has found."""
        if not changed and not gone:
            return
        self._version += 1
        for job_id in changed:
            self._gone.pop(job_id, None)
            self._at[job_id] = self._version
            self._at.move_to_end(job_id)
        for job_id in gone:
            self._at.pop(job_id, None)
            self._gone[job_id] = self._version
            self._gone.move_to_end(job_id)
        while len(self._gone) > GONE_KEPT:
            self._oldest = self._gone.popitem(last=False)[1]

    def since(self, after: str, rows: Mapping[str, Row]) -> dict[str, Any]:
        """What changed after the version `after`, as `RunBook.changes` says."""
        process, _, number = after.partition("-")
        known = int(number) if process == self._process and number.isdecimal() else -1
        everything = known < self._oldest or known > self._version
        changed = list(rows) if everything else self._later(self._at, known)
        return {
            "version": f"{self._process}-{self._version}",
            "all": everything,
            "rows": [rows[job_id] for job_id in changed],
            "gone": [] if everything else self._later(self._gone, known),
        }

    @staticmethod
    def _later(versions: OrderedDict[str, int], known: int) -> list[str]:
        found = []
        for job_id in reversed(versions):
            if versions[job_id] <= known:
                break
            found.append(job_id)
        return found


class KeptRows:
    """Rows of jobs that are over, in a file that may be lost; with few jobs it is not worth one.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, tuple[int, Row]] | None = None
        self._saved = 0
        self._saved_at = float("-inf")

    def read(self) -> None:
        """Read the file, if that was not done yet."""
        if self._read is None:
            self._read = self._load()
            self._saved = len(self._read)  # what lies there need not be written again

    def row(self, job_id: str, stamp: int) -> Row | None:
        """Row of a job whose folder was last changed at `stamp`; None where it has to be made."""
        self.read()
        found = (self._read or {}).pop(job_id, None)
        return found[1] if found is not None and found[0] == stamp else None

    def save(self, rows: Mapping[str, Row], resting: Mapping[str, int]) -> None:
        """Write the rows of the jobs that rest, once a minute and only if there are others than before."""
        due = time.monotonic() - self._saved_at > SAVE_SECONDS
        if len(resting) <= FEW or len(resting) == self._saved or not due:
            return
        self._saved, self._saved_at = len(resting), time.monotonic()
        kept = {job_id: (stamp, rows[job_id]) for job_id, stamp in resting.items()}
        # It only saves time: a full disk must not take the list from the page.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"format": _format(next(iter(rows.values()))), "rows": kept}, ensure_ascii=False)
            write_atomic(self._path, text)

    def _load(self) -> dict[str, tuple[int, Row]]:
        try:
            raw = read_json(self._path)
            rows = {str(job_id): (int(stamp), dict(row)) for job_id, (stamp, row) in raw["rows"].items()}
        except (OSError, TypeError, KeyError, ValueError, AttributeError):
            return {}
        wanted = raw.get("format")
        return rows if all(_format(row) == wanted for _, row in rows.values()) else {}


def _format(row: Row) -> list[str]:
    """Rows of another version of the studio are made again."""
    return [__version__, *sorted(row)]
