"""Why a worker ended without saying so: from its exit status and the end of its log.

A worker that can still speak writes its own reason (`worker.py`); this is for those that could not.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Diagnosis:
    """One sentence on the cause, and one on what to change."""

    reason: str
    fix: str


_MEMORY = "Lower training.micro_batch_size or data.max_length, or set training.activation_checkpointing to true"
# What the log says, in the words of Python, torch and the kernel → what a person can do.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (r"CUDA out of memory|OutOfMemoryError", "the GPU's memory was full", _MEMORY),
    (r"MemoryError|Cannot allocate memory|DefaultCPUAllocator", "the computer's memory was full", _MEMORY),
    (r"No space left on device|Errno 28|PytorchStreamWriter failed|unexpected pos \d+ vs", "the disk was full",
     "Free some space, or point STUDIO_HOME to another disk, and start again"),
    (r"ModuleNotFoundError: No module named '([^']+)'", "the Python package '{0}' is missing",
     "'studio doctor' names the line that installs it"),
    (r"PermissionError: .*?'([^']+)'", "'{0}' cannot be written or read", "Check who owns it"),
)  # fmt: skip


def diagnose(exit_code: int | None, log: Path) -> Diagnosis:
    """Explain the end of a worker.

    Args:
        exit_code: as the operating system gave it, negative for a signal; None where nobody saw it.
        log: the worker's output.
    """
    tail = read_tail(log)
    for pattern, reason, fix in _PATTERNS:
        found = re.search(pattern, tail)
        if found:
            return Diagnosis(reason.format(*found.groups()), fix)
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        if -exit_code == signal.SIGKILL:
            return Diagnosis("the process was killed (SIGKILL), most often because memory was full", _MEMORY)
        return Diagnosis(f"the process ended with {name}", "The log shows what it did last")
    if exit_code is None:
        return Diagnosis(
            "the process disappeared: the computer was restarted, or something killed it",
            "Let it go on: its last checkpoint is kept",
        )
    last = _last_error_line(tail)
    return Diagnosis(last or f"the process ended with exit status {exit_code}", "The log shows what it did last")


def from_exception(error: BaseException) -> Diagnosis:
    """Explain an exception that a worker did not expect, for its state and its last event."""
    text = f"{type(error).__name__}: {error}"
    for pattern, reason, fix in _PATTERNS:
        found = re.search(pattern, text)
        if found:
            return Diagnosis(reason.format(*found.groups()), fix)
    first = " ".join(text.split())[:300]
    return Diagnosis(f"an unexpected error ({first})", "The log has the details; please report it as a bug")


def read_tail(log: Path, size: int = TAIL_BYTES) -> str:
    """Return the last `size` bytes of a file as text; empty when it is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - size))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _last_error_line(tail: str) -> str:
    lines = [line for line in tail.splitlines() if re.match(r"^[\w.]*(Error|Exception|Interrupt)\b", line)]
    return lines[-1][:300] if lines else ""
