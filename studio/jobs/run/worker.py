"""How a job's process behaves: it writes its state, its events and its log, and obeys a stop.

`python -m studio.KIND JOB_DIR` calls `run_worker` with the work as a function. Everything that the person is
to read goes through `JobContext`; an exception becomes one sentence in the state and a traceback in the log.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import psutil

from studio.errors import StoppedError, StudioError
from studio.jobs.run.diagnosis import Diagnosis, from_exception, oom_kills
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import RESERVE, write_json, write_reserve
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import Kind
from studio.jobs.store.state import own_identity, write_state
from studio.models.catalog.quiet import quiet_imports
from studio.private import begin
from studio.reach import reading_as_asked
from studio.settings import Settings, read_settings

PROGRESS_SECONDS = 0.25


class Phase:
    """A part of the work that a person can watch: a name, and a count where there is one.

    Used as a context manager. `done` and `total` are in `unit`; total None means that the end is not known.
    """

    def __init__(self, context: JobContext, name: str, total: float | None, unit: str) -> None:
        self._context, self.name, self.total, self.unit = context, name, total, unit
        self.done = 0.0
        self._written = 0.0

    def set(self, done: float, total: float | None = None) -> None:
        """Say how far the phase is; written at most four times a second."""
        self.done = done
        if total is not None:
            self.total = total
        if time.monotonic() - self._written >= PROGRESS_SECONDS:
            self._write("progress")

    def advance(self, by: float = 1.0) -> None:
        """Say that `by` more units are done."""
        self.set(self.done + by)

    def _write(self, state: str) -> None:
        self._written = time.monotonic()
        self._context.event(
            "phase", phase=self.name, state=state, done=self.done, total=self.total, unit=self.unit
        )  # fmt: skip

    def __enter__(self) -> Phase:
        self._context.log(self.name)
        self._write("begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.total is not None:
            self.done = self.total
        self._write("end" if kind is None else "broken")


class Reporter:
    """Turns calls (phase name, done, total) of a service into phases of a job; used as a context manager."""

    def __init__(self, context: JobContext, unit: str) -> None:
        self._context, self._unit = context, unit
        self._phase: Phase | None = None

    def __call__(self, name: str, done: float = 0.0, total: float | None = None) -> None:
        """Say how far the phase `name` is; another name ends the one before."""
        if self._phase is None or self._phase.name != name:
            self.__exit__(None, None, None)
            self._phase = self._context.phase(name, total, self._unit)
            self._phase.__enter__()
        self._phase.set(done, total)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._phase is not None:
            self._phase.__exit__(kind, error, trace)
            self._phase = None


class JobContext:
    """What the work sees of its job."""

    def __init__(self, job: JobFolder, settings: Settings) -> None:
        self.job, self.settings = job, settings
        self.config: dict[str, Any] = job.request.config
        self._events = EventWriter(job.events_path)
        self._process = psutil.Process()
        self._began = time.monotonic()
        self._stopping = False

    def event(self, kind: str, **fields: Any) -> None:
        """Write one event; the process's resident memory (GB, 1e9 bytes) and its seconds so far go with it."""
        passed = round(time.monotonic() - self._began, 3)
        self._events.write(kind, **fields, memory_gb=round(self._process.memory_info().rss / 1e9, 4), passed=passed)

    def phase(self, name: str, total: float | None = None, unit: str = "") -> Phase:
        """Begin a phase; use it as a context manager.

        Args:
            name: a word or two for the page.
            total: units to do; None where it is not known.
            unit: plural noun, such as "rows"; empty for a plain count.
        """
        return Phase(self, name, total, unit)

    def reporter(self, unit: str = "") -> Reporter:
        """Make a progress function for services that name their own phases."""
        return Reporter(self, unit)

    def outline(self, seconds: dict[str, float], validations: int = 1) -> None:
        """Say what the phases that follow should take, for the bar of the whole job (`views.progress`).

        Args:
            seconds: by phase; all validations of a training together.
            validations: how many there are.
        """
        self.event("outline", seconds={name: round(each, 2) for name, each in seconds.items()}, validations=validations)

    def metric(self, step: int, values: dict[str, float], **more: Any) -> None:
        """Write the numbers of one step. NaN and infinity are written as text, since JSON has neither.

        Args:
            step: global step, counted from 1.
            values: by metric name.
            more: further fields of the event, as they are.
        """
        finite = {key: _json_number(value) for key, value in values.items()}
        self.event("metric", step=step, values=finite, **more)

    def notice(self, level: str, text: str, fix: str = "", change: dict[str, Any] | None = None) -> None:
        """Tell the person something.

        Args:
            level: info, warning or error.
            text: what was noticed.
            fix: what to do about it.
            change: options, by dotted name, with which a button starts a new run.
        """
        self.log(" ".join(f"{level}: {text} {fix}".split()))
        self.event("notice", level=level, text=text, fix=fix, **({"change": change} if change else {}))

    def relay(self, event: dict[str, Any]) -> None:
        """Write an event that another machine has written, with the time that it has."""
        fields = {key: value for key, value in event.items() if key not in ("seq", "kind", "self")}
        self._events.write(event["kind"], **fields)

    def sample(self, **fields: Any) -> None:
        """Show an example of what the model does now."""
        self.event("sample", **fields)

    def resumed(self, step: int) -> None:
        """Say from which step it goes on: readers forget what came after it, since that is done once more."""
        self.log(f"resuming from step {step}")
        self.event("resume", step=step)

    def result(self, name: str, values: dict[str, Any]) -> None:
        """Write a named result of the job."""
        self.event("result", name=name, values=values)

    def log(self, text: str) -> None:
        """Write a line with the time to log.txt."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def environment(self, **values: Any) -> None:
        """Add to environment.json."""
        write_json(self.job.environment_path, {**self.job.environment(), **values})

    @contextlib.contextmanager
    def lend_events(self) -> Iterator[None]:
        """Leave the events to another process of the job, which writes them until the end of the block."""
        self._events.close()
        try:
            yield
        finally:
            self._events = EventWriter(self.job.events_path)

    def should_stop(self) -> bool:
        """True once a stop was asked for; the first time, the state becomes `stopping`."""
        if not self._stopping and self.job.stop_path.exists():
            self._stopping = True
            self.set_state(status="stopping")
            self.log("stopping: requested by the user")
            self.event("phase", phase="stopping", state="begin", done=0, total=None, unit="")
        return self._stopping

    def check_stop(self) -> None:
        """Raise StoppedError once a stop was asked for; for work that has nothing to save."""
        if self.should_stop():
            raise StoppedError("it was stopped")

    def set_state(self, **changes: Any) -> None:
        """Change fields of state.json."""
        write_state(self.job.state_path, self.job.state().with_(**changes))

    def finish(self, status: str, reason: str = "", fix: str = "", exit_code: int = 0, **more: Any) -> None:
        """Write the end, the last event first: who sees the state sees the whole log.

        Args:
            status, reason, fix, exit_code: fields of the state.
            more: others of them.
        """
        (self.job.path / RESERVE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # log and events may lie on a full disk: the state has the reason too
            self.log(f"{status}: {reason}" if reason else status)
            self.event("done", status=status, reason=reason, fix=fix)
        self._events.close()
        self.set_state(status=status, reason=reason, fix=fix, exit_code=exit_code, finished=time.time(), **more)


def run_worker(kind: Kind, work: Callable[[JobContext], None], argv: list[str] | None = None) -> int:
    """Run `work` as the job whose folder is the first argument; return the exit status.

    Args:
        kind: of the job, for the usage message.
        work: raises StudioError for what the person can mend, StoppedError when it was asked to stop.
        argv: arguments without the program; None for those of this process.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print(f"usage: python -m studio.{kind} JOB_DIR", file=sys.stderr)
        return 2
    begin()
    job = JobFolder(Path(arguments[0]).absolute())
    pid, start = own_identity()
    write_state(
        job.state_path, job.state().with_(status="running", pid=pid, process_start=start, started=time.time())
    )  # fmt: skip
    context = JobContext(job, read_settings())
    context.event("begin")
    signal.signal(signal.SIGTERM, _on_term)
    quiet_imports()
    faulthandler.enable()  # a crash in compiled code leaves its place in the log
    try:
        context.environment(oom_kills=oom_kills())
        write_reserve(job.path)
        try:
            with reading_as_asked(context.settings, job.request.roots):
                work(context)
        finally:  # also of a run that was stopped or failed
            kept = job.environment().get("peak_memory_bytes", 0)
            context.environment(peak_memory_bytes=max(peak_memory_bytes(), kept))
    except StoppedError as error:
        context.finish("stopped", error.what, error.fix, StoppedError.exit_code)
        return StoppedError.exit_code
    except StudioError as error:
        reason = f"{error.where}: {error.what}" if error.where else error.what
        more = {"change": getattr(error, "change", {}), "line": getattr(error, "line", None)}
        context.finish("failed", reason, error.fix, error.exit_code, **more)
        return error.exit_code
    except BaseException as error:  # the boundary of the process: nothing may leave it without a reason
        (job.path / RESERVE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            traceback.print_exc()
        found = _explain(error, job)
        context.finish("failed", found.reason, found.fix, 1, change=found.change, line=found.line)
        return 1
    context.finish("completed")
    return 0


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _explain(error: BaseException, job: JobFolder) -> Diagnosis:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        error = OSError(f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}")
    return from_exception(error, job.log_path, job.environment(), job.state().log_start)


def _on_term(number: int, frame: FrameType | None) -> None:
    raise StoppedError("it was stopped before it could save its last step")


def _json_number(value: float) -> float | str:
    number = float(value)
    return number if number - number == 0 else str(number)
