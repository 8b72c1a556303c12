"""What each rank of a run does just now: tokens a second, memory, and how busy its GPU is. The first one tells it.

Every rank adds its figures to those of the others after a step, as a few numbers; the first writes an event of them
every few seconds, so that whoever reads the job's folder sees them, on any machine.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil
import torch

from studio.jobs.run.worker import JobContext
from studio.train.ranks import sharing

# Seconds between two events, and so many for each rank where that is more: of 64 ranks one has 6 kB.
EVENT_SECONDS, RANK_SECONDS = 2.0, 0.5
NOT_KNOWN = -1.0


class RankFigures:
    """Tells the figures of all ranks.

    Args:
        context: the job.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._before, self._told = 0, 0.0
        self._process = psutil.Process()

    def tell(self, step: int, tokens: int, seconds: float, *, last: bool) -> None:
        """Take in a step; every rank calls it.

        Args:
            step: its number.
            tokens: what this rank has computed so far; 0 where the trainer does not count them by rank.
            seconds: the step took.
            last: of the run, which is told in any case.
        """
        speed = (tokens - self._before) / max(seconds, 1e-9) if tokens else NOT_KNOWN
        self._before = tokens
        used, whole, busy = self._memory()
        own = [speed, used, whole, busy]
        gathered = [0.0] * (len(own) * sharing.count())
        place = len(own) * sharing.number()
        gathered[place : place + len(own)] = own
        gathered = sharing.total(gathered)
        now = time.monotonic()
        if now - self._told < max(EVENT_SECONDS, RANK_SECONDS * sharing.count()) and not last:
            return
        self._told = now
        ranks = [_named(gathered[at : at + len(own)]) for at in range(0, len(gathered), len(own))]
        self._context.event("ranks", step=step, ranks=ranks)

    def _memory(self) -> tuple[float, float, float]:
        """(GB that are used, GB that the GPU has or 0, share of the last second in which it computed or NOT_KNOWN)."""
        if not torch.cuda.is_available():
            return self._process.memory_info().rss / 1e9, 0.0, NOT_KNOWN
        free, whole = torch.cuda.mem_get_info()
        busy = NOT_KNOWN
        with contextlib.suppress(ImportError, RuntimeError):  # NVIDIA's library for Python is not installed everywhere
            busy = torch.cuda.utilization() / 100
        return (whole - free) / 1e9, whole / 1e9, busy


def _named(figures: list[float]) -> dict[str, Any]:
    speed, used, whole, busy = figures
    return {
        "tokens_per_second": None if speed < 0 else round(speed, 1),
        "memory": round(used, 3), "of": round(whole, 3) or None, "busy": None if busy < 0 else round(busy, 3),
    }  # fmt: skip
