"""What the launchers of several machines tell each other while their ranks compute: that they live, and how it ended.

A machine that falls silent is lost, and so is the run: every launcher then ends its ranks, since one that waits for a
rank of a lost machine may do so for ever. The first machine hears all others and says how the run ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from torch.distributed import DistError

from studio.train.ranks.ends import AGAIN, End, RankError, read_end, write_end
from studio.train.ranks.hanging import ranks_of
from studio.train.ranks.meeting import Meeting

BEAT_SECONDS = 1.0
# A machine that says nothing for so long is lost.
SILENT_SECONDS = 20.0
# Ranks that lost a rank of another machine may say so themselves, before they are ended.
LEAVE_SECONDS = 8.0


class Bond(threading.Thread):
    """Keeps in touch with the other machines, as a context manager around the ranks of this one.

    Attributes:
        lost: number of a machine that fell silent; None while there is none.
        ended: ranks of this machine that were ended because others are gone.
        still: seconds for which every rank of this machine has waited for others, 0 while one does not.
    """

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(daemon=True)
        self._meeting, self._own = meeting.again(), meeting
        self._over = threading.Event()
        self._trouble: float | None = None  # when ranks here are to be ended
        self._beats = 0
        now = time.monotonic()
        others = range(1, meeting.nodes) if meeting.number == 0 else (0,)
        self._seen: dict[int, tuple[int, float]] = {one: (0, now) for one in others}
        self._others_still: dict[int, float] = {}
        self.still = 0.0
        self.lost: int | None = None
        self.ended: set[int] = set()

    def __enter__(self) -> Bond:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def others_still(self) -> float:
        """Seconds for which every rank of every other machine has waited for others; 0 while one does not."""
        others = {one: seconds for one, seconds in self._others_still.items() if one != self._own.number}
        return min(others.values(), default=0.0) if len(others) == self._own.nodes - 1 else 0.0

    def run(self) -> None:
        """Beat and listen until the ranks here are over."""
        while not self._over.wait(BEAT_SECONDS):
            if self.lost is None:
                try:
                    self._beat()
                except DistError:  # the store is gone, and so is the first machine
                    self._lose(0)
            if self._trouble is not None and time.monotonic() >= self._trouble:
                self._end_ranks()

    def _beat(self) -> None:
        meeting, now = self._meeting, time.monotonic()
        self._beats += 1
        self._others_still[meeting.number] = self.still
        told = {str(one): seconds for one, seconds in self._others_still.items()}
        meeting.say(f"beat/{meeting.number}", [self._beats, told])
        for one, (number, at) in self._seen.items():
            heard = meeting.hear(f"beat/{one}")
            if heard is not None and heard[0] != number:
                self._seen[one] = (int(heard[0]), now)
                if meeting.number == 0:
                    self._others_still[one] = float(heard[1].get(str(one), 0.0))
                else:
                    self._others_still = {int(other): float(seconds) for other, seconds in heard[1].items()}
            elif (word := meeting.hear(f"end/{one}")) is not None:
                if word["failed"]:
                    self._trouble = self._trouble or now + LEAVE_SECONDS
            elif now - at > SILENT_SECONDS:
                self._lose(one)
        if meeting.number and meeting.hear("over") is not None:
            self._trouble = self._trouble or now + LEAVE_SECONDS

    def _lose(self, one: int) -> None:
        self.lost, self._trouble = one, time.monotonic()

    def _end_ranks(self) -> None:
        for rank, process in ranks_of(psutil.Process()).items():
            with contextlib.suppress(psutil.Error):
                process.kill()
                self.ended.add(rank)

    def say_end(self, ends: dict[int, End], failed: bool) -> None:
        """Tell the first machine how the ranks of this one ended.

        Args:
            ends: of those that are known.
            failed: whether one of them failed.
        """
        with contextlib.suppress(DistError):
            told = {str(rank): asdict(end) for rank, end in ends.items()}
            self._own.say(f"end/{self._own.number}", {"ends": told, "failed": failed})

    def outcome(self) -> dict[str, Any] | None:
        """On another machine: what the first one says of the run's end, which is empty where it completed.

        None where it says nothing: it is gone, or waits for a machine that is.
        """
        end = time.monotonic() + 2 * SILENT_SECONDS
        with contextlib.suppress(DistError):
            while time.monotonic() < end:
                if (over := self._own.hear("over")) is not None:
                    return dict(over)
                time.sleep(BEAT_SECONDS / 2)
        return None

    def gather(self, job: Path, count: int) -> RankError | None:
        """On the first machine: hear how the ranks of the others ended, once those here are over.

        Args:
            job: the job's folder, where the ends are written.
            count: ranks of all machines.

        Returns:
            an error that names a machine which was lost, where no rank says a better reason.
        """
        waiting = set(self._seen) - {self.lost}
        end = max(at for _, at in self._seen.values()) + SILENT_SECONDS
        while waiting:
            for one in sorted(waiting):
                word = self._own.hear(f"end/{one}")
                if word is not None:
                    waiting.remove(one)
                    _write_ends(job, word)
            if waiting and time.monotonic() > end:
                self.lost = min(waiting)
                break
            time.sleep(BEAT_SECONDS / 2 if waiting else 0)
        if self.lost is None:
            return None
        ends = [read_end(job, rank) for rank in range(count)]
        if any(end is not None and end.kind in ("studio", "error", "dead") for end in ends):
            return None
        return RankError(
            f"machine {self.lost} is lost: nothing was heard from it for {SILENT_SECONDS:.0f} seconds", fix=AGAIN
        )


def _write_ends(job: Path, word: dict[str, Any]) -> None:
    for rank, end in word["ends"].items():
        with contextlib.suppress(TypeError, ValueError):
            write_end(job, int(rank), End(**end))
