"""Processes that tests start, and whether they are still there."""

from __future__ import annotations

import signal

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


def interruptible() -> None:
    """Let Ctrl-C end a child, as its `preexec_fn`: a shell that starts the tests behind `&` has it switched off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
