"""Why a worker ended: from its exit status, the end of its log and what the kernel counted.

A worker that can still speak writes its own reason (`worker.py`), by the same table (`causes.py`). Full memory comes
with the plan's breakdown and the first change that fits.
"""

from __future__ import annotations

import re
import signal
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.jobs.run.causes import CAUSES, CERTAIN_SIGNALS, LESS_MEMORY, SIGNALS, Cause
from studio.jobs.store.logs import Tail, read_tail
from studio.models.plan.cures import Cure, first_fitting, said

_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt|Warning|Exit)\b.*|Fatal Python error: .*)$", re.MULTILINE)
_FRAME = re.compile(r'^  File "([^"]+)", line (\d+)', re.MULTILINE)
# Lines of our own: what a notice tells is no cause of the end, and what stands before a step was survived.
_NOTICE = re.compile(r"^\d\d:\d\d:\d\d  (?:info|warning): .*$", re.MULTILINE)
_PROGRESS = re.compile(r"^\d\d:\d\d:\d\d  (?:training +\d+ of \d+|validation  step \d+)  .*$", re.MULTILINE)
_LAST = "The log shows what it did last"
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass(frozen=True)
class Diagnosis:
    """One sentence on the cause, one on what to do, the options to change, and the log's line (from 1) that told it."""

    reason: str
    fix: str
    change: dict[str, Any] = field(default_factory=dict)
    line: int | None = None


def diagnose(
    exit_code: int | None,
    log: Path,
    environment: dict[str, Any] | None = None,
    kills: dict[str, int] | None = None,
    start: int = 0,
) -> Diagnosis:
    """Explain the end of a worker.

    Args:
        exit_code: as the operating system gave it, negative for a signal; None where nobody saw it.
        log: the worker's output.
        environment: what the worker noted of itself: its plan, and the kernel's count when it began.
        kills: the kernel's count of processes that it ended because memory was full; None asks for it.
        start: byte of the log at which this attempt began.
    """
    environment, tail = environment or {}, read_tail(log, start=start)
    full = rose(environment.get("oom_kills") or {}, oom_kills() if kills is None else kills)
    if full and (exit_code is None or exit_code == -signal.SIGKILL):
        found = Diagnosis("the kernel killed the process because memory was full (SIGKILL)", LESS_MEMORY)
        return with_plan(replace(found, line=_last_line(tail)), environment, gpu=False)
    number = -exit_code if exit_code is not None and exit_code < 0 else None
    if number not in CERTAIN_SIGNALS and (known := _known(tail)) is not None:
        return _of(*known, tail, environment)
    if number == signal.SIGKILL:
        return _killed(tail, environment, counted=full is not None)
    if number is not None:
        name = signal.Signals(number).name
        reason, fix = SIGNALS.get(number, (f"the process ended with {name}", _LAST))
        return Diagnosis(reason, fix, line=_error_line(tail) or _last_line(tail))
    if exit_code is None:
        return Diagnosis(
            "the process disappeared: the computer was restarted, or something killed it",
            "Resume it from its last checkpoint",
            line=_last_line(tail),
        )
    errors = list(_ERROR.finditer(tail.text))
    if not errors:
        return Diagnosis(f"the process ended with exit status {exit_code}", _LAST, line=_last_line(tail))
    frames = list(_FRAME.finditer(tail.text, 0, errors[-1].start()))
    place = f"It was raised in {Path(frames[-1][1]).name}, line {frames[-1][2]}. " if frames else ""
    return Diagnosis(errors[-1][0][:300], f"{place}{_LAST}", line=tail.line_at(errors[-1].start()))


def from_exception(
    error: BaseException, log: Path | None = None, environment: dict[str, Any] | None = None, start: int = 0
) -> Diagnosis:
    """Explain an exception that a worker did not expect, for its state and its last event.

    Args:
        error: the exception, whose traceback is in the log by now.
        log: the worker's output.
        environment: what the worker noted of itself.
        start: byte of the log at which this attempt began.
    """
    text = f"{type(error).__module__}.{type(error).__qualname__}: {error}\n"
    tail = read_tail(log, start=start) if log is not None else Tail("", 1)
    known = _known(Tail(text, 1))
    if known is not None:
        found = _of(*known, Tail(text, 1), environment or {})
        again = list(re.finditer(known[0].pattern, tail.text))
        return replace(found, line=tail.line_at(again[-1].start()) if again else _error_line(tail))
    first = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f"It was raised in {Path(frames[-1].filename).name}, line {frames[-1].lineno}. " if frames else ""
    fix = f"{place}The log has the details; please report it as a bug"
    return Diagnosis(f"an unexpected error ({first})", fix, line=_error_line(tail))


def with_plan(found: Diagnosis, environment: dict[str, Any], gpu: bool) -> Diagnosis:
    """Add to a diagnosis of full memory what the plan counted, and the first change that fits.

    Args:
        found: the diagnosis.
        environment: what the worker noted of itself.
        gpu: whether it was the GPU's memory.
    """
    plan = environment.get("plan") or {}
    memory, free = plan.get("memory") or {}, int(plan.get("available_bytes") or 0)
    if not memory:
        return found
    total = sum(memory.values())
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in memory.items() if size)
    where = "on the GPU" if gpu else "of memory"
    counted = f"The plan counted {total / 1e9:.2f} GB ({parts}), and {free / 1e9:.2f} GB {where} were free"
    cures = [Cure(dict(one["change"]), int(one["bytes"])) for one in plan.get("cures") or []]
    cure = first_fitting(cures, total, free)
    if cure is None:
        return replace(found, fix=f"{counted}. No setting is enough: choose a smaller model in model.path")
    return replace(
        found, fix=f"{counted}. {said(cure.change)}: it then needs {cure.bytes / 1e9:.2f} GB", change=cure.change
    )


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> dict[str, int]:
    """Return how many processes were ended so far, by the file that counts: of this machine, and of this container.

    Only a difference means something: whoever asks keeps an earlier answer for `rose`.
    """
    places = [proc / "vmstat"]
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.strip("/")
        if not controllers:  # version 2: one tree for all
            places += [cgroups / inside / "memory.events", cgroups / "unified" / inside / "memory.events"]
        elif "memory" in controllers.split(","):
            places.append(cgroups / "memory" / inside / "memory.oom_control")
    return {str(place): int(words[1]) for place in places for line in _lines(place) if _counts(words := line.split())}


def rose(before: dict[str, int], now: dict[str, int]) -> bool | None:
    """Whether a process was ended since `before`; None where nobody counted both times. A restart begins at 0."""
    both = before.keys() & now.keys()
    return any(now[place] > before[place] for place in both) if both else None


def _known(tail: Tail) -> tuple[Cause, re.Match[str]] | None:
    """The first row of the table that the text has after its last step, where it has it last."""
    text = _NOTICE.sub(lambda found: " " * len(found[0]), tail.text)  # places stay what they are
    steps = list(_PROGRESS.finditer(text))
    after = steps[-1].end() if steps else 0
    for cause in CAUSES:
        found = list(re.compile(cause.pattern).finditer(text, after))
        if found:
            return cause, found[-1]
    return None


def _of(cause: Cause, found: re.Match[str], tail: Tail, environment: dict[str, Any]) -> Diagnosis:
    words = [group for group in found.groups() if group] or ["this model"]
    diagnosis = Diagnosis(cause.reason.format(*words), cause.fix, line=tail.line_at(found.start()))
    return with_plan(diagnosis, environment, gpu=cause.name.startswith("gpu")) if cause.memory else diagnosis


def _killed(tail: Tail, environment: dict[str, Any], counted: bool) -> Diagnosis:
    line = _last_line(tail)
    if counted:
        return Diagnosis(
            "something killed the process (SIGKILL); the kernel reports no out-of-memory kill",
            "Resume it from its last checkpoint; a job scheduler with a limit may have killed it",
            line=line,
        )
    found = Diagnosis("the process was killed (SIGKILL), most often because memory was full", LESS_MEMORY, line=line)
    return with_plan(found, environment, gpu=False)


def _error_line(tail: Tail) -> int | None:
    errors = list(_ERROR.finditer(tail.text))
    return tail.line_at(errors[-1].start()) if errors else None


def _last_line(tail: Tail) -> int | None:
    """The last line that is not empty."""
    text = tail.text.rstrip()
    return tail.line_at(len(text) - 1) if text else None


def _counts(words: list[str]) -> bool:
    return len(words) == 2 and words[0] == "oom_kill" and words[1].isdigit()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
