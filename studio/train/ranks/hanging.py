"""Finds a rank that hangs: one that does nothing while others wait for it.

Ranks wait for each other all the time, so that one is idle says nothing. Where all of them are idle (gloo sleeps while
it waits; nccl does not, so there one is enough), nobody is left to wait for: then each is asked by a signal where in
the code it stands. Whoever stands in a wait for others is not to blame, nor is one that waits for the disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from studio.jobs.store.files import size_of
from studio.jobs.store.logs import read_tail
from studio.train.ranks import sharing
from studio.train.ranks.ends import FOLDER, RankError, hung, log_of

LOOK_SECONDS = 1.0
IDLE_SECONDS = 10.0
# A process that did less than this share of a second in each second has done nothing.
IDLE_SHARE = 0.02
# While this file is there the ranks compute; before and after that one of them may wait for a network.
WATCHED = "computing"
_FRAME = re.compile(r'^  File "([^"]+)", line (\d+) in (\S+)$', re.MULTILINE)
# Code that waits for other ranks: collectives, and the backward pass, whose gradients are added up.
_WAITS = re.compile(r"torch/(?:distributed|autograd/graph|autograd/__init__)|train/ranks/sharing")
_BELOW = re.compile(r"torch/(?:_ops|_library)")  # between a collective and the place that waits for it
_PATIENT = re.compile(r"train/loop/trackers")  # waits for a network, not for a rank


@dataclass
class _Seen:
    """What a rank had done when it last did something: seconds of processor, bytes read and written, and when."""

    work: float = -1.0
    io: int = -1
    at: float = 0.0


class Watch(threading.Thread):
    """Looks at the ranks that this process has begun, as a context manager.

    Attributes:
        found: the error that names the hanging rank, which was then killed.
    """

    def __init__(self, job: Path, count: int) -> None:
        super().__init__(daemon=True)
        self._job, self._count = job, count
        self._over = threading.Event()
        self._seen: dict[int, _Seen] = {}
        self.found: RankError | None = None

    def __enter__(self) -> Watch:
        (self._job / FOLDER / WATCHED).unlink(missing_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        (self._job / FOLDER / WATCHED).unlink(missing_ok=True)

    def run(self) -> None:
        """Look until the ranks are over."""
        while not self._over.wait(LOOK_SECONDS):
            if not (self._job / FOLDER / WATCHED).exists():
                self._seen.clear()
                continue
            with contextlib.suppress(psutil.Error, OSError):  # a rank that ends just now
                self._look()

    def _look(self) -> None:
        ranks = ranks_of(psutil.Process())
        if len(ranks) < self._count:
            return
        now = time.monotonic()
        idle = {rank: process for rank, process in ranks.items() if self._is_idle(rank, process, now)}
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1")
        if len(idle) < self._count and not (gpus and idle):
            return
        stopped = [rank for rank, process in idle.items() if process.status() == psutil.STATUS_STOPPED]
        places = {rank: ask(self._job, rank, process) for rank, process in idle.items() if rank not in stopped}
        if any(_PATIENT.search(" ".join(stack)) for stack in places.values()):
            self._seen.clear()
            return
        lost = stopped or [rank for rank, stack in places.items() if not _WAITS.search(stack[0] if stack else "")]
        if not lost and len(idle) < self._count:
            return
        rank = min(lost or idle)
        seconds = now - self._seen[rank].at
        stack = places.get(rank, [])
        self.found = hung(self._job, rank, seconds, stack[0] if stack else "")
        ranks[rank].kill()
        self._over.set()

    def _is_idle(self, rank: int, process: psutil.Process, now: float) -> bool:
        times, seen = process.cpu_times(), self._seen.setdefault(rank, _Seen(at=now))
        work, moved = times.user + times.system, 0
        with contextlib.suppress(AttributeError, psutil.Error):  # not on every system
            counted = process.io_counters()
            moved = counted.read_bytes + counted.write_bytes
        busy = work - seen.work > IDLE_SHARE * LOOK_SECONDS or moved != seen.io
        if busy or process.status() == psutil.STATUS_DISK_SLEEP:
            seen.at = now
        seen.work, seen.io = work, moved
        return now - seen.at >= IDLE_SECONDS


@contextlib.contextmanager
def watched_ranks(job: Path) -> Iterator[None]:
    """Have the launcher look for ranks that hang; does nothing in a run of one process."""
    if sharing.count() == 1:
        yield
        return
    sharing.together()
    (job / FOLDER / WATCHED).touch()
    try:
        yield
    finally:
        (job / FOLDER / WATCHED).unlink(missing_ok=True)


def ranks_of(launcher: psutil.Process) -> dict[int, psutil.Process]:
    """The ranks that a process has begun, by their number."""
    found: dict[int, psutil.Process] = {}
    for child in launcher.children():
        with contextlib.suppress(psutil.Error, KeyError, ValueError):
            found[int(child.environ()["RANK"])] = child
    return found


def ask(job: Path, rank: int, process: psutil.Process) -> list[str]:
    """Where in the code a rank stands, the innermost place first, as "FUNCTION (FILE, line N)".

    Empty if it does not answer.

    Args:
        job: folder of the job; the answer goes to the rank's log.
        rank: its number.
        process: the rank.
    """
    log = log_of(job, rank)
    before = size_of(log)
    process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        time.sleep(0.1)
        main = read_tail(log, start=before).text.rpartition("\n\n")[2]  # of the threads it is told last
        frames = [f"{name} ({file}, line {line})" for file, line, name in _FRAME.findall(main)]
        if frames:
            return list(itertools.dropwhile(_BELOW.search, frames))
    return []
