"""Files sent to a repository of the Hub: a step of the export, so that a stop ends it at once.

Large files go by the protocol of Git LFS, by their SHA-256: one that the Hub has, of an upload that was cut short or of
an earlier export, is not sent again. One commit at the end makes all of them visible, so that nobody loads half of a
model. The token comes from the environment or `hf auth login` through huggingface_hub, and is written nowhere.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from studio.export.delivery.refusals import said_plainly
from studio.export.steps import Report, serve_step
from studio.models.catalog.hubaccess import hub_api

THREADS = 4
TELL_SECONDS = 0.2


class Counter:
    """How many bytes of all files are on the Hub: told in a row, from several threads.

    Args:
        total: bytes of all files.
        report: called with (bytes so far, total).
    """

    def __init__(self, total: int, report: Report) -> None:
        self.total, self._report = total, report
        self.places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._told = 0.0

    def at(self, name: str, place: int) -> None:
        """Say how far a file has been read for sending; what is sent once more counts once.

        Args:
            name: of the file.
            place: bytes from its begin.
        """
        with self._lock:
            self.places[name] = max(self.places.get(name, 0), place)
            if time.monotonic() - self._told >= TELL_SECONDS:
                self._told = time.monotonic()
                self._report(min(sum(self.places.values()), self.total), self.total)

    @property
    def sent(self) -> int:
        """Bytes that were read for sending so far."""
        return sum(self.places.values())


class CountedFile(io.BufferedReader):
    """A file that tells how far it has been read.

    Args:
        path: of the file.
        told: called with the place after each read.
    """

    def __init__(self, path: str, told: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._tell_place = told

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        data = super().read(size)
        self._tell_place(self.tell())
        return data


class CountedAddition(CommitOperationAdd):
    """A file of a commit, whose bytes are counted while they are sent."""

    counter: Counter | None = None

    @contextlib.contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
        """Open it; with a bar, as the client calls it, it is opened to be sent."""
        name, counter = self.path_in_repo, self.counter if with_tqdm else None
        with CountedFile(str(self.path_or_fileobj), lambda place: counter.at(name, place) if counter else None) as file:
            yield file

    def b64content(self) -> bytes:
        """Content of a small file, which is sent in the commit itself."""
        if self.counter is not None:
            self.counter.at(self.path_in_repo, self.upload_info.size)
        return bytes(super().b64content())


def upload(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Send the files, and make them visible.

    Args:
        request: repo, private (of a new one), files (name there, path, sha256 or None), remove (names), message.
        report: called with (bytes so far, total).

    Returns:
        commit (its id), sent (bytes).

    Raises:
        StudioError: the Hub refused it or cannot be reached.
    """
    repo, api = request["repo"], hub_api()
    counter = Counter(sum(Path(one["path"]).stat().st_size for one in request["files"]), report)
    additions = [_addition(one, counter) for one in request["files"]]
    with said_plainly(repo, "upload to"):
        api.create_repo(repo, private=request["private"], exist_ok=True)
        api.preupload_lfs_files(repo, additions, num_threads=THREADS, free_memory=False)
        removals = [CommitOperationDelete(name) for name in request["remove"]]
        done = api.create_commit(repo, [*additions, *removals], commit_message=request["message"])
    report(counter.total, counter.total)
    return {"commit": done.oid, "sent": counter.sent}


def _addition(file: dict[str, Any], counter: Counter) -> CountedAddition:
    made = CountedAddition(path_in_repo=file["name"], path_or_fileobj=file["path"])
    made.counter = counter
    if file["sha256"] is not None:  # it was read for that a moment ago
        made.upload_info.sha256 = bytes.fromhex(file["sha256"])
    return made


if __name__ == "__main__":
    raise SystemExit(serve_step(upload))
