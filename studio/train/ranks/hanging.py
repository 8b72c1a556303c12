"""Finds a rank that hangs: one that does nothing while others wait for it, or that computes without an end.

Ranks wait for each other all the time, so that one is idle says nothing. Where all of them are idle (gloo sleeps while
it waits; nccl does not, so there one is enough), nobody is left to wait for: then each is asked by a signal where in
the code it stands. Whoever stands in a wait for others is not to blame, nor is one that waits for the disk.

Where all but one are idle, that one computes. It is to blame only in a step, long after such a step has ever taken, and
asked twice; saving, validating, writing samples and compiling may take one rank as long as they like.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from studio.jobs.store.events import read_events
from studio.jobs.store.files import size_of
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.logs import read_tail
from studio.train.ranks import sharing
from studio.train.ranks.ends import FOLDER, RankError, endless, hung, log_of

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
# A rank on which all others wait may compute for so long, and for so many usual steps; then it is asked again.
ENDLESS_SECONDS = 20.0
ENDLESS_STEPS = 20
AGAIN_SECONDS = 4.0
_LEAST_STEPS = 3  # of which the time is known
_EVENTS_BYTES = 10**8
_STEP = re.compile(r"^training_step \(")
# What takes a while the first time that rows are of a certain length.
_COMPILES = re.compile(r"torch/_(?:dynamo|inductor)|triton/|subprocess\.py")


class Others(Protocol):
    """The other machines of a run (`bond`).

    Attributes:
        still: seconds for which every rank of this machine has waited for others, 0 while one does not; told to them.
    """

    still: float

    def others_still(self) -> float:
        """The same of all other machines together."""
        ...


@dataclass
class _Seen:
    """What a rank had done when it last did something: seconds of processor, bytes read and written, and when."""

    work: float = -1.0
    io: int = -1
    at: float = 0.0


class Watch(threading.Thread):
    """Looks at the ranks that this process has begun, as a context manager.

    Args:
        job: folder of the job.
        count: ranks of this machine.
        others: the other machines of the run, if it has any.

    Attributes:
        found: the error that names the hanging rank, which was then killed.
    """

    def __init__(self, job: Path, count: int, others: Others | None = None) -> None:
        super().__init__(daemon=True)
        self._job, self._count, self._others = job, count, others
        self._over = threading.Event()
        self._seen: dict[int, _Seen] = {}
        self._asked = 0.0  # when all ranks here were last asked
        self._limit: float | None = None  # seconds that a rank may compute while all others wait
        self._suspect: tuple[int, float] | None = None  # a rank that computes, and since when it is suspected
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
        stopped = [rank for rank, process in idle.items() if process.status() == psutil.STATUS_STOPPED]
        if len(idle) < self._count and not stopped and not (gpus and idle):
            self._tell_others(0.0)
            self._look_for_endless(ranks, idle, now)
            return
        if self._others is not None and not stopped and now - self._asked < IDLE_SECONDS:
            if self._others.still:
                self._tell_others(self._waited(idle, now))
            return
        self._asked = now
        places = {rank: self._ask(rank, process) for rank, process in idle.items() if rank not in stopped}
        if any(_PATIENT.search(" ".join(stack)) for stack in places.values()):
            self._seen.clear()
            self._tell_others(0.0)
            return
        lost = stopped or [rank for rank, stack in places.items() if not _waits(stack)]
        if not lost and (len(idle) < self._count or self._others is not None):
            if len(idle) == self._count:
                self._tell_others(self._waited(idle, now))
                return
            for rank in idle:
                self._seen[rank].at = now  # it is asked again, but not at every look
            return
        if not stopped and self._others is not None and not self._others.others_still():
            return  # those there may compute what is waited for here
        rank = min(lost or idle)
        seconds = now - self._seen[rank].at
        stack = places.get(rank, [])
        self._end(ranks[rank], hung(self._job, rank, seconds, stack[0] if stack else ""))

    def _look_for_endless(
        self, ranks: dict[int, psutil.Process], idle: dict[int, psutil.Process], now: float
    ) -> None:  # fmt: skip
        """See whether one rank computes without an end, while all others wait for it."""
        busy = [rank for rank in ranks if rank not in idle]
        waited = min(
            self._waited(idle, now) if idle else float("inf"),
            float("inf") if self._others is None else self._others.others_still(),
        )
        if len(busy) != 1 or waited == float("inf") or waited < ENDLESS_SECONDS:
            self._limit = self._suspect = None
            return
        if self._limit is None:
            self._limit = longest_wait(JobFolder(self._job))
        rank = busy[0]
        if waited < self._limit or (self._suspect is not None and now - self._suspect[1] < AGAIN_SECONDS):
            return
        stack = self._ask(rank, ranks[rank])
        steps = any(map(_STEP.search, stack)) and not any(map(_COMPILES.search, stack)) and not _waits(stack)
        if not steps or not all(_waits(self._ask(other, process)) for other, process in idle.items()):
            self._limit, self._suspect = float("inf"), None  # until somebody moves
        elif self._suspect is None:
            self._suspect = (rank, now)
        else:
            self._end(ranks[rank], endless(self._job, rank, waited, stack[0]))

    def _waited(self, idle: dict[int, psutil.Process], now: float) -> float:
        return now - max(self._seen[rank].at for rank in idle)

    def _tell_others(self, seconds: float) -> None:
        if self._others is not None:
            self._others.still = seconds

    def _end(self, process: psutil.Process, error: RankError) -> None:
        self.found = error
        process.kill()
        self._over.set()

    def _ask(self, rank: int, process: psutil.Process) -> list[str]:
        stack = ask(self._job, rank, process)
        self._seen[rank].work, self._seen[rank].io = _done(process)  # the answer is no work
        return stack

    def _is_idle(self, rank: int, process: psutil.Process, now: float) -> bool:
        seen = self._seen.setdefault(rank, _Seen(at=now))
        work, moved = _done(process)
        busy = work - seen.work > IDLE_SHARE * LOOK_SECONDS or moved != seen.io
        if busy or process.status() == psutil.STATUS_DISK_SLEEP:
            seen.at = now
        seen.work, seen.io = work, moved
        return now - seen.at >= IDLE_SECONDS


def _done(process: psutil.Process) -> tuple[float, int]:
    """What a process has done so far: seconds of processor, and bytes read and written."""
    times, moved = process.cpu_times(), 0
    with contextlib.suppress(AttributeError, psutil.Error):  # not on every system
        counted = process.io_counters()
        moved = counted.read_bytes + counted.write_bytes
    return times.user + times.system, moved


def _waits(stack: list[str]) -> bool:
    return bool(stack and _WAITS.search(stack[0]))


def longest_wait(job: JobFolder) -> float:
    """Seconds that a rank may compute while all others wait for it; infinity while few steps are done."""
    events, _ = read_events(job.events_path, 0, _EVENTS_BYTES)
    times = [event["passed"] for event in events if event["kind"] == "metric" and "passed" in event]
    taken = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
    if len(taken) < _LEAST_STEPS:
        return float("inf")
    return max(ENDLESS_SECONDS, float(ENDLESS_STEPS * statistics.median(taken)))


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
