"""Processes that tests start, and whether they are still there."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil


def ended(process: psutil.Process) -> bool:
    """Whether a process computes no more; a dead one that nobody has asked after is still listed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def gone(pid: int) -> bool:
    """Whether no process of that number computes."""
    try:
        return ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def end_jobs(home: Path) -> None:
    """End what runs jobs of a home: a test that failed may have left a training, which would go on beside others."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "studio.jobs.run" in " ".join(process.cmdline()) and process.environ().get("STUDIO_HOME") == str(home):
                process.kill()


def interruptible() -> None:
    """Let Ctrl-C end a child, as its `preexec_fn`: a shell that starts the tests behind `&` has it switched off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
