"""Imported before torch: a worker of pytest-xdist takes its share of the cores, and with it all that it starts.

Torch and llama.cpp compute with as many threads as they may, and after each product wait for all of them: two workers
whose threads push each other aside take several times as long as two beside each other.
"""

from __future__ import annotations

import os


def take() -> None:
    """Stay on every second core, where there are two workers."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    if mine:
        os.sched_setaffinity(0, mine)


take()
