"""Child processes of an export: run one, follow its output, stop it, and measure its time and peak memory.

Foreign programs (the converter) are read line by line. Our own steps speak JSON: the request is a file, progress
and errors are marked lines on stdout, the answer is a file; everything else they print goes to the job's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from studio.errors import InputError, StoppedError, StudioError
from studio.jobs.run import warm
from studio.private import begin
from studio.processes import child_environment, module_command, module_of
from studio.reach import reading_as_asked, roots_of_page
from studio.settings import read_settings

MARK = "@studio "
KEPT_LINES = 200
POLL_SECONDS = 0.2
KILL_AFTER_SECONDS = 5.0
# Offline, so that nothing named in a configuration is fetched, code least of all.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
# Our own steps that want torch and transformers: where this job came from a warm process, they do as well.
HEAVY = {
    "studio.export.gguf.merge", "studio.export.gguf.lora", "studio.export.gguf.converter",
    "studio.export.proof.reference", "studio.export.proof.checkpoint", "studio.export.reporting.answers",
}  # fmt: skip
_LINE_END = re.compile(rb"[\r\n]+")

Report = Callable[[float, float | None], None]
Process = subprocess.Popen[bytes] | warm.Forked


class ProgressPhase(Protocol):
    """The part of a job's phase that a step uses."""

    def set(self, done: float, total: float | None = None) -> None:
        """Say how far it is."""


class Watcher(Protocol):
    """The part of `studio.jobs.run.worker.JobContext` that the export uses, so that tests need no job."""

    def phase(self, name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[ProgressPhase]:
        """Begin a phase.

        Args:
            name: a word or two for the page.
            total: units to do; None where it is not known.
            unit: plural noun, such as "tensors"; empty for a plain count.
        """

    def notice(self, level: str, text: str, fix: str = "") -> None:
        """Tell the person something.

        Args:
            level: info, warning or error.
            text: one sentence.
            fix: what to do about it; empty where there is nothing.
        """

    def log(self, text: str) -> None:
        """Write a line of log."""

    def should_stop(self) -> bool:
        """Say whether a stop was asked for."""


class QuietPhase:
    """A phase that nobody watches."""

    def set(self, done: float, total: float | None = None) -> None:
        """Do nothing."""


class QuietWatcher:
    """Stands in for a job outside of one: only notices are shown, on stderr."""

    def phase(self, name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[ProgressPhase]:
        """Begin a phase that nobody watches.

        Args:
            name: a word or two for the page.
            total: units to do; None where it is not known.
            unit: plural noun, such as "tensors"; empty for a plain count.
        """
        return nullcontext(QuietPhase())

    def notice(self, level: str, text: str, fix: str = "") -> None:
        """Print it.

        Args:
            level: info, warning or error.
            text: one sentence.
            fix: what to do about it; empty where there is nothing.
        """
        print(f"{level}: {text} {fix}".rstrip(), file=sys.stderr)

    def log(self, text: str) -> None:
        """Drop it."""

    def should_stop(self) -> bool:
        """Never."""
        return False


@dataclass
class StepResult:
    """How a child process ended.

    Attributes:
        code: exit status; negative is the signal that ended it.
        seconds: wall time.
        peak_bytes: largest resident set (0.2 s before the end at the latest); counts pages of mapped files too.
        lines: the last lines of its output (stdout and stderr together).
        answer: what one of our own steps returned.
        error: what one of our own steps raised for the person to read.
    """

    code: int
    seconds: float
    peak_bytes: int
    lines: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    error: StudioError | None = None

    def ending(self) -> str:
        """How it ended, in words: the signal, or the last thing it said."""
        if self.code < 0:
            name = signal.Signals(-self.code).name
            hint = " (usually: not enough memory)" if name == "SIGKILL" else ""
            return f"the process was killed by {name}{hint}"
        said = next((line for line in reversed(self.lines) if line.strip()), "no output")
        return f"exit status {self.code}: {said.strip()[:300]}"


def run_step(
    command: Sequence[str],
    watcher: Watcher,
    on_line: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> StepResult:
    """Run a command to its end; return how it ended, whatever the exit status.

    Args:
        command: program and arguments.
        watcher: polled for a stop; gets nothing else.
        on_line: called with each line of output; a carriage return ends a line too (progress bars).
        environment: added to this process's environment.

    Raises:
        StoppedError: a stop was asked for; the process is gone by then.
    """
    started = time.monotonic()
    process, output = _begin(command, {"PYTHONUNBUFFERED": "1", **(environment or {})})
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(output, lines), daemon=True).start()
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    peak, looked = 0, 0.0
    try:
        while True:
            if time.monotonic() - looked >= POLL_SECONDS:
                looked = time.monotonic()
                peak = max(peak, _peak_now(process.pid))
                if watcher.should_stop():
                    raise StoppedError("the export was stopped")
            try:
                line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                break
            kept.append(line)
            if on_line is not None:
                on_line(line)
        code = process.wait()
    finally:
        if process.returncode is None:
            _end(process)
    return StepResult(code, time.monotonic() - started, peak, list(kept))


def _begin(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Process, IO[bytes]]:
    """Start a process, or fork it where there is one that has its libraries; return it and its output."""
    called = module_of(command)
    if warm.here is not None and called is not None and called[0] in HEAVY:
        read, write = os.pipe()
        with contextlib.suppress(OSError), os.fdopen(write, "wb") as out:
            child = warm.here.start(*called, out, Path.cwd(), {**os.environ, **environment}, session=False)
            if child.begun():
                return child, os.fdopen(read, "rb")
        os.close(read)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None  # it was opened with a pipe
    return process, process.stdout


def run_own_step(
    module: str, request: dict[str, Any], folder: Path, watcher: Watcher, report: Report | None = None,
    environment: Mapping[str, str] | None = None,
) -> StepResult:  # fmt: skip
    """Run `python -m MODULE` with a request; progress goes to `report`, its other output to the log.

    Args:
        module: a module of this package whose main calls `serve_step`.
        request: JSON-able arguments.
        folder: an existing folder for the request and the answer.
        watcher: the job.
        report: called with (done, total).
        environment: added to that of a step, such as what lets it use the network.

    Returns:
        The result. `error` is set when the step raised a StudioError; a crash only shows in `code`.

    Raises:
        StoppedError: a stop was asked for.
    """
    name = module.rsplit(".", 1)[-1]
    asked, answered = folder / f"{name}-request.json", folder / f"{name}-answer.json"
    asked.write_text(json.dumps({"request": request, "roots": roots_of_page()}, ensure_ascii=False), encoding="utf-8")
    answered.unlink(missing_ok=True)
    errors: list[StudioError] = []

    def follow(line: str) -> None:
        if not line.startswith(MARK):
            if line.strip():
                watcher.log(line)
            return
        said = json.loads(line[len(MARK) :])
        if "error" in said:
            kind = InputError if said["code"] == InputError.exit_code else StudioError
            errors.append(kind(said["error"]["what"], where=said["error"]["where"], fix=said["error"]["fix"]))
        elif report is not None:
            report(said["done"], said["total"])

    result = run_step(
        module_command(module, str(asked), str(answered)),
        watcher,
        follow,
        {**child_environment(), **QUIET, **(environment or {})},
    )
    result.error = errors[0] if errors else None
    if result.code == 0:
        result.answer = json.loads(answered.read_text(encoding="utf-8"))
    return result


def require(result: StepResult, what: str) -> StepResult:
    """Return the result of a step that must succeed.

    Raises:
        StudioError: it did not; `what` names the work ("merging").
    """
    if result.error is not None:
        raise result.error
    if result.code != 0:
        raise StudioError(f"{what} failed: {result.ending()}", fix="The job's log has the full output")
    return result


def serve_step(work: Callable[[dict[str, Any], Report], dict[str, Any]]) -> int:
    """Be the child of `run_own_step`: read the request, work, write the answer; return the exit status."""
    begin()
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def report(done: float, total: float | None) -> None:
        _say({"done": done, "total": total})

    try:
        with reading_as_asked(read_settings(), asked["roots"]):
            answer = work(asked["request"], report)
    except StudioError as error:
        _say({"error": error.as_dict(), "code": error.exit_code})
        return error.exit_code
    Path(sys.argv[2]).write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
    return 0


def _say(value: dict[str, Any]) -> None:
    # A leading newline, since a library may have left half a line on the same stream.
    print(f"\n{MARK}{json.dumps(value)}", flush=True)


def _read_lines(output: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    rest = b""
    while chunk := output.read1(65536):  # type: ignore[attr-defined]
        *whole, rest = _LINE_END.split(rest + chunk)
        for line in whole:
            lines.put(line.decode("utf-8", "replace"))
    if rest:
        lines.put(rest.decode("utf-8", "replace"))
    output.close()
    lines.put(None)


def _peak_now(pid: int | None) -> int:
    """Peak resident bytes of a process so far; 0 when it cannot be known, as of one that is still to be forked.

    Not from wait4: a child's ru_maxrss starts at its parent's size, which survives exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _end(process: Process) -> None:
    process.terminate()
    try:
        process.wait(KILL_AFTER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
