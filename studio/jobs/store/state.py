"""What a job's state is, and whether its process lives.

A process is known by its id *and* its start time, because ids are used again. The worker writes the state
while it lives; the supervisor only once the worker is dead (or was never started).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from studio.jobs.store.files import read_json, write_json

Status = Literal["queued", "starting", "running", "stopping", "completed", "stopped", "failed", "lost"]
FINAL: frozenset[str] = frozenset({"completed", "stopped", "failed", "lost"})
ACTIVE: frozenset[str] = frozenset({"starting", "running", "stopping"})


@dataclass(frozen=True)
class JobState:
    """Content of state.json. Times are Unix seconds.

    Attributes:
        status: where the job is in its life.
        pid: process id of the worker, None before it ran.
        process_start: when the worker began, as `process_start` gives it.
        reason: one sentence on why it ended, for failed, lost and stopped.
        fix: what to do about it.
        change: options, by dotted name, with which a new run would not end like this; a button starts it.
        line: number (from 1) of the log's line that tells why it ended, None where there is none.
        exit_code: the process's exit status, negative for a signal; None where nobody saw it.
        attempt: how many times it was begun, from 1: a training that goes on after its end has one more.
        device: on which device it was started ("cpu", "cuda:0"), "" before that.
        log_start: bytes that the log had when this attempt began: what stands before is an earlier one's.
    """

    status: Status = "queued"
    pid: int | None = None
    process_start: float | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    reason: str = ""
    fix: str = ""
    change: dict[str, Any] = field(default_factory=dict)
    line: int | None = None
    exit_code: int | None = None
    attempt: int = 1
    device: str = ""
    log_start: int = 0

    @property
    def final(self) -> bool:
        """True when nothing will change any more."""
        return self.status in FINAL

    def alive(self) -> bool:
        """True when the recorded process exists and is the one that was recorded."""
        return self.pid is not None and self.process_start is not None and is_alive(self.pid, self.process_start)

    def with_(self, **changes: Any) -> JobState:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def read_state(path: Path) -> JobState:
    """Read state.json; a job whose file is missing, damaged or another user's alone counts as lost.

    Fields that a later version wrote are ignored.
    """
    try:
        raw = read_json(path)
    except ValueError:
        raw = {}
    if not isinstance(raw, dict) or raw.get("status") not in get_args(Status):
        what = "missing" if raw is None else "damaged, or may not be read"
        return JobState(status="lost", reason=f"the job's state file is {what}", created=0.0)
    known = {one.name for one in fields(JobState)}
    state = JobState(**{key: value for key, value in raw.items() if key in known})
    if not _sound(state):
        return JobState(status="lost", reason="the job's state file is damaged", created=0.0)
    return state


def _sound(state: JobState) -> bool:
    """Whether every field has a value of its type, so that the readers have to trust none."""
    numbers = (state.created, state.attempt, state.log_start)
    maybe = (state.pid, state.process_start, state.started, state.finished, state.line, state.exit_code)
    texts = (state.reason, state.fix, state.device)
    return (
        all(map(_is_number, numbers))
        and all(value is None or _is_number(value) for value in maybe)
        and all(isinstance(value, str) for value in texts)
        and isinstance(state.change, dict)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_state(path: Path, state: JobState) -> None:
    """Write state.json whole."""
    write_json(path, asdict(state))


def process_start(pid: int) -> float | None:
    """Return when a process began, None when there is no such process (a zombie is none).

    On Linux in clock ticks since boot, which a change of the clock does not move; elsewhere in Unix seconds.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.parent.parent.joinpath("stat").exists():
            # The name in parentheses may hold spaces; state is field 3, start time field 22 (proc(5)).
            values = stat.read_text().rpartition(")")[2].split()
            return None if values[0] == "Z" else float(values[19])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (OSError, psutil.Error):
        return None


def is_alive(pid: int, start: float) -> bool:
    """True when `pid` exists and began at `start`, as `process_start` gave it."""
    found = process_start(pid)
    return found is not None and abs(found - start) < 0.1


def own_identity() -> tuple[int, float]:
    """Return this process's id and start."""
    pid = os.getpid()
    return pid, process_start(pid) or 0.0
