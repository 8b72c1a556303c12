"""Locks between processes, for which nobody waits without a word.

A lock of the studio is held for a moment, or for a piece of work that says so. Held by another user of the machine, or
for longer than `PATIENCE`, it is told who holds it, as far as the system says (/proc/locks).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from studio.errors import StudioError
from studio.private import lock_mode, user_name

PATIENCE = 3.0  # seconds until it is told
_PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        pid: its number.
        uid: its user; None where the system does not say.
        command: its command line, "" where the system does not say.
    """

    pid: int
    uid: int | None
    command: str

    @property
    def foreign(self) -> bool:
        """Whether another user's process has it, which no lock of a home should be."""
        return self.uid is not None and self.uid != os.geteuid()

    @property
    def ours(self) -> bool:
        """Whether it is this process, or by its command line another one of the studio and of this user."""
        words = self.command.split()
        names = any(word.startswith("studio.") or Path(word).name in ("studio", "app.py") for word in words)
        return self.pid == os.getpid() or (names and not self.foreign)

    @property
    def said(self) -> str:
        """For a sentence."""
        user = f" of {user_name(self.uid)}" if self.uid is not None else ""
        return f"process {self.pid}{user}" + (f" ({self.command:.60})" if self.command else "")


class HeldError(StudioError):
    """A lock is held by somebody else (exit code 1)."""


def make_lock(path: Path) -> FileLock:
    """Make a lock that no other user of the machine can open. Prefer `locked`, which tells of a wait."""
    return FileLock(path, mode=lock_mode())


@contextlib.contextmanager
def locked(
    path: Path, what: str, tell: Callable[[str], None] | None = None, seconds: float = PATIENCE
) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: its file.
        what: what is done under it, for the sentence: "the line of jobs is changed".
        tell: told each second that another process of the studio is at the same work; the wait has no end then. An
            exception of it ends the wait.
        seconds: the longest wait for anybody else, and without `tell` for all.

    Raises:
        HeldError: it is held by another user's process, or for too long.
    """
    lock, began = make_lock(path), time.monotonic()
    while True:
        try:
            lock.acquire(timeout=min(seconds, 1.0))
            break
        except Timeout:
            holder, waited = holder_of(path), time.monotonic() - began
            if waited >= seconds and (tell is None or not (holder is None or holder.ours)):
                raise held(path, what, holder) from None
            if tell is not None:
                tell(f"waiting for {holder.said if holder else 'another process'}")
    try:
        yield
    finally:
        lock.release()


@cache
def say_waiting(word: str) -> None:
    """Tell of a wait on the terminal, once, for work that has no other way to tell."""
    print(word, file=sys.stderr, flush=True)


def held(path: Path, what: str, holder: Holder | None) -> HeldError:
    """The error for a lock that somebody has who should not.

    Args:
        path: of the lock file.
        what: cannot be done, as the beginning of a sentence.
        holder: who has it; None where the system does not tell.
    """
    who = holder.said if holder is not None else "another process (this system does not say which)"
    if holder is not None and holder.foreign:
        fix = f"Ask {user_name(holder.uid or 0)} to end it, or set STUDIO_HOME to a folder that only you can open"
    else:
        fix = f"Look what it does, and end it if it hangs (kill {holder.pid})" if holder else "End what uses this home"
    return HeldError(f"{what}, but {path.name} is held by {who}", where=str(path), fix=fix)


def holder_of(path: Path) -> Holder | None:
    """Return the process that holds the lock of a file, as /proc/locks tells; None where it does not tell."""
    try:
        info = path.stat()
        lines = (_PROC / "locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    place = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    taken = [words for line in lines if len(words := line.split()) > 5 and words[1] != "->"]
    # A file system of several layers says another device here than there: the number of the file then.
    same = [words for words in taken if words[5] == place]
    same = same or [words for words in taken if words[5].rpartition(":")[2] == str(info.st_ino)]
    pids = [int(words[4]) for words in same if words[4].isdigit() and int(words[4]) > 0]
    return _described(pids[0]) if pids else None


def _described(pid: int) -> Holder:
    folder = _PROC / str(pid)
    try:
        # Not the folder's owner: that of a process that has changed its user is root.
        lines = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        uid = next(int(line.split()[2]) for line in lines if line.startswith("Uid:"))
        words = (folder / "cmdline").read_bytes().decode("utf-8", errors="replace").split("\0")
        command = " ".join(" ".join(words).split())
    except (OSError, StopIteration):  # ended since, and its child has the lock still
        return Holder(pid, None, "")
    return Holder(pid, uid, "".join(letter if letter.isprintable() else "?" for letter in command))
