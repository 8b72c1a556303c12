"""A job folder wherever it lies, read again and again: on this machine, by ssh, or in any storage that fsspec knows.

What is new of it is written into a folder here, which is then shown like any other job. Only state, request and events
are read, and nothing is written there; ssh needs no studio on the other side.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from studio.errors import InputError, StudioError
from studio.foreign import as_path
from studio.jobs import JobFolder, find_job
from studio.jobs.store.files import write_atomic
from studio.jobs.store.state import read_state
from studio.launch.ssh.address import FOLDER, SCHEME, parse_address
from studio.launch.ssh.machine import BrokenError, Machine, UnknownHostError
from studio.settings import Settings

POLL_SECONDS = 2.0
# Bytes of the events in one answer.
PART = 4 * 1024 * 1024
_WHERE = "studio watch"
_NO_FILE, _NOT_READ = 44, 45
# What a login shell prints comes before it.
_BEGIN = "studio:begin"


class Place(Protocol):
    """A job folder that is not one of this machine."""

    def read(self, name: str, at: int) -> bytes | None:
        """Bytes of a file from `at` on, at most `PART`; None where it is not there.

        Raises:
            BrokenError: not now.
            InputError, StudioError: never like this.
        """
        ...


class BySsh:
    """A folder on a machine that is reached by ssh.

    Args:
        machine: that machine; the folder is that of its address.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self, name: str, at: int) -> bytes | None:
        """As `Place.read`."""
        folder = self._machine.address.folder
        path = ("" if folder.startswith("/") else '"$HOME"/') + shlex.quote(f"{folder}/{name}")
        command = (
            f"test -f {path} || exit {_NO_FILE}; test -r {path} || exit {_NOT_READ}; "
            f"echo; echo {_BEGIN}; tail -c +{at + 1} {path} | head -c {PART}"
        )
        code, out, errors = self._machine.run(command, seconds=60)
        if code == _NO_FILE:
            return None
        _, begin, content = out.partition(f"\n{_BEGIN}\n".encode())
        if not begin:
            said = (
                "you may not read it" if code == _NOT_READ else (errors.strip().splitlines() or [f"status {code}"])[-1]
            )
            raise StudioError(
                f"{folder}/{name} on {self._machine.shown} cannot be read ({said})", where=_WHERE,
                fix="Check the file there",
            )  # fmt: skip
        return content


class ByFsspec:
    """A folder in a storage that fsspec knows, such as s3://bucket/run.

    Args:
        url: of the folder.

    Raises:
        InputError: fsspec does not know it, or lacks a package for it.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise InputError(f"{url} cannot be read: {error}", where=_WHERE, fix="Install that package") from error
        except Exception as error:
            raise InputError(f"'{url}' cannot be read: {error}", where=_WHERE, fix="Check the address") from error

    def read(self, name: str, at: int) -> bytes | None:
        """As `Place.read`."""
        path = f"{self._path.rstrip('/')}/{name}"
        try:
            self._system.invalidate_cache()
            size = int(self._system.info(path)["size"])
            return b"" if size <= at else bytes(self._system.cat_file(path, start=at, end=min(size, at + PART)))
        except FileNotFoundError:
            return None
        except Exception as error:  # each storage has its own
            raise BrokenError(f"{path} cannot be read now ({error})", where=_WHERE, fix="Check your access") from error


@contextlib.contextmanager
def opened(text: str, settings: Settings, tell: Callable[[str], None]) -> Iterator[JobFolder]:
    """Open a job for watching: its name or id, its folder, or the address of its folder.

    Args:
        text: as it was typed.
        settings: of this home.
        tell: told that a connection broke, and that it is back.

    Raises:
        InputError, StudioError: there is no job, or it cannot be read.
    """
    if text.startswith(SCHEME):
        address = parse_address(text, _WHERE)
        if address.folder == FOLDER:
            raise InputError(f"'{text}' names no folder", where=_WHERE, fix="Write ssh://host/folder/of/the/job")
        with Machine(address, _WHERE) as machine, _copied(BySsh(machine), text, tell) as job:
            yield job
    elif len(urlsplit(text).scheme) > 1 and "://" in text:
        with _copied(ByFsspec(text), text, tell) as job:
            yield job
    elif as_path(text).is_dir():
        job = JobFolder(as_path(text).absolute())
        if not job.state_path.exists():
            raise _no_job(text)
        yield job
    else:
        yield find_job(settings.jobs, text)


@contextlib.contextmanager
def _copied(place: Place, text: str, tell: Callable[[str], None]) -> Iterator[JobFolder]:
    with tempfile.TemporaryDirectory(prefix="studio-watch-") as folder:
        copy = _Copy(place, Path(folder), text, tell)
        copy.step()  # what is wrong at first is wrong
        thread = threading.Thread(target=copy.run, name="watch", daemon=True)
        thread.start()
        try:
            yield copy.job
        finally:
            copy.ended.set()
            thread.join(timeout=POLL_SECONDS)


class _Copy:
    """A job folder here that follows one elsewhere."""

    def __init__(self, place: Place, folder: Path, text: str, tell: Callable[[str], None]) -> None:
        self._place, self._text, self._tell = place, text, tell
        self.job, self.ended = JobFolder(folder / "job"), threading.Event()
        self.job.path.mkdir()
        self._at = 0

    def step(self) -> bool:
        """Read what is new; returns whether the job is over."""
        state = self._place.read("state.json", 0)  # before the events: of a job that is over, all of them are there
        asked = None if (self.job.path / "job.yaml").exists() else self._place.read("job.yaml", 0)
        if state is None or (asked is None and not (self.job.path / "job.yaml").exists()):
            raise _no_job(self._text)
        if asked is not None:
            write_atomic(self.job.path / "job.yaml", asked.decode("utf-8", errors="replace"))
        while new := self._place.read("events.jsonl", self._at):
            with self.job.events_path.open("ab") as file:
                file.write(new)
            self._at += len(new)
        write_atomic(self.job.state_path, state.decode("utf-8", errors="replace"))
        return read_state(self.job.state_path).final

    def run(self) -> None:
        """Go on until the job is over, nobody watches any more, or its folder is gone."""
        broken: float | None = None
        while not self.ended.wait(POLL_SECONDS):
            try:
                if self.step():
                    return
            except (BrokenError, UnknownHostError) as error:
                if broken is None:
                    broken = time.time()
                    since = time.strftime("%H:%M:%S", time.localtime(broken))
                    self._tell(f"no connection since {since}: {error.what}; trying again")
                continue
            except (StudioError, OSError) as error:
                self._lose(error)
                return
            if broken is not None:
                self._tell(f"connected again, after {time.time() - broken:.0f} seconds")
                broken = None

    def _lose(self, error: Exception) -> None:
        reason = error.what if isinstance(error, StudioError) else str(error)
        lost: dict[str, Any] = {"status": "lost", "reason": f"it can no longer be watched: {reason}", "created": 0.0}
        write_atomic(self.job.state_path, json.dumps(lost))


def _no_job(text: str) -> InputError:
    return InputError(
        f"'{text}' is not the folder of a job", where=_WHERE, fix="Name the folder that holds job.yaml and state.json"
    )
