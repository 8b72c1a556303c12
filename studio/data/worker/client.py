"""The page's side of the data worker: starts it, asks it, restarts it.

The worker holds a tokenizer (and so about 130 MB) that the page's process must not hold. It is started by the
first call and ends by itself when idle or when this process is gone. Calls from several threads wait for each
other; results are plain values, errors are the worker's own StudioError and InputError objects. A call may last as
long as the worker shows signs of life; one that shows none is replaced. Of several workers `pool` makes one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import IO, Any, Protocol

from studio.data.wire import error_from_dict, to_line
from studio.errors import StoppedError, StudioError
from studio.processes import child_environment, cpu_seconds, kill, module_command
from studio.settings import Settings

OnProgress = Callable[[str, float, float | None], None]
IDLE_SECONDS = 900.0
# The worker says twice a second that it lives. Silent is one that is stuck in a single call into a library: so many
# seconds of its own work, or, where others keep the machine from it, of waiting.
SILENT_SECONDS = 10.0
_SILENT_WALL_SECONDS = 120.0
_LOOK_SECONDS = 0.5
_LOG_TAIL_BYTES = 2000


class DataCalls(Protocol):
    """Who answers questions about data: a worker, or several."""

    def call(
        self, op: str, *, timeout: float | None = None, on_progress: OnProgress | None = None, slot: str = "",
        **args: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Ask; see `DataWorker.call`.

        Args:
            op, timeout, on_progress, slot, args: as `DataWorker.call`.
        """
        ...


class DataWorker:
    """A warm worker process, one per page process.

    Args:
        settings: the studio's settings.
        confined: allow only data and model files below `settings.roots`; the page sets it.
        idle_seconds: the worker ends after this long without a call; the next call starts another.
        share: it may take the machine's memory divided by this, 4 GB at least.
    """

    def __init__(
        self, settings: Settings, *, confined: bool = False, idle_seconds: float = IDLE_SECONDS, share: int = 2
    ) -> None:
        self.settings, self.confined, self._started_with = settings, confined, (idle_seconds, share)
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._count = 0
        self._closing = 0  # how many close it now
        # Who asks what now: guards the two below and the worker's input.
        self._asking = threading.Lock()
        self._newest: Counter[str] = Counter()
        self._running: tuple[str, int, _Process] | None = None

    def call(
        self,
        op: str,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        slot: str = "",
        wanted: Callable[[], bool] = lambda: True,
        **args: Any,
    ) -> dict[str, Any]:
        """Ask the worker and return its answer; `studio.data.worker.operations` and `whole` list the operations.

        Args:
            op: name of the operation.
            timeout: seconds, the wait for other calls included; None for as long as the worker lives.
            on_progress: called with (phase, done, total or None), in this thread.
            slot: of all calls with one slot only the newest is of interest; the others end (one browser's profile,
                for instance). "" is none.
            wanted: asked just before the call is sent; False ends it.
            args: the operation's arguments, plain values.

        Raises:
            InputError: the data, the model or an argument cannot be used.
            StoppedError: a newer call with the slot came, or `cancel`, or `close`.
            StudioError: the worker did not answer in time, showed no sign of life, or ended twice.
        """
        deadline = time.monotonic() + timeout if timeout is not None else math.inf
        turn = self._take(slot) if slot else 0
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise _too_late(op, timeout)

        def ask() -> dict[str, Any]:
            return self._ask(op, args, deadline, on_progress, slot, lambda: wanted() and self._is_newest(slot, turn))

        try:
            try:
                return ask()
            except _EndedError:
                if self._closing:
                    raise _closed(op) from None
                # It was idle and left, or it crashed: a fresh one gets the question once more.
                try:
                    return ask()
                except _EndedError as error:
                    if self._closing:  # it was the second one that `close` ended
                        raise _closed(op) from None
                    raise StudioError(
                        f"the data worker died twice ({error})",
                        where=f"data worker, {op}",
                        fix="Check the free memory; `studio doctor` shows what is missing",
                    ) from error
        finally:
            self._lock.release()
            with self._asking:
                if self._newest[slot] == turn:
                    del self._newest[slot]

    def start(self) -> None:
        """Start the worker if it does not run, without waiting for it."""
        if self._lock.acquire(blocking=False):  # else somebody has it, and it runs
            try:
                if self.pid is None:
                    self._drop()
                    self._process = _Process(self.settings, *self._started_with)
            finally:
                self._lock.release()

    def _take(self, slot: str) -> int:
        """Begin a call with a slot, which ends the others of it; returns its turn."""
        with self._asking:
            self._newest[slot] += 1
        return self.cancel(slot)

    def cancel(self, slot: str) -> int:
        """End the calls with this slot, running and waiting, where the worker next tells its progress.

        The worker stays, with what it has loaded.

        Returns:
            how often the slot was taken or cancelled; 0 where there is no call with it.
        """
        with self._asking:
            if slot not in self._newest:
                return 0
            self._newest[slot] += 1
            if self._running is not None and self._running[0] == slot:
                with contextlib.suppress(_EndedError):
                    self._running[2].send(to_line({"cancel": self._running[1]}))
            return self._newest[slot]

    def close(self) -> None:
        """End the worker, and the call that it is at with a StoppedError; the next call starts another."""
        with self._asking:
            self._closing += 1
        try:
            process = self._process
            if process is not None:
                process.popen.kill()
            with self._lock:
                self._drop()
        finally:
            with self._asking:
                self._closing -= 1

    @property
    def pid(self) -> int | None:
        """Process id while a worker runs, else None."""
        process = self._process
        return process.popen.pid if process is not None and process.popen.poll() is None else None

    def _is_newest(self, slot: str, turn: int) -> bool:
        return not slot or self._newest[slot] == turn

    def _ask(
        self,
        op: str,
        args: dict[str, Any],
        deadline: float,
        on_progress: OnProgress | None,
        slot: str,
        wanted: Callable[[], bool],
    ) -> dict[str, Any]:
        if self._process is None or self._process.popen.poll() is not None:
            self._drop()
            self._process = _Process(self.settings, *self._started_with)
        process = self._process
        self._count += 1
        number = self._count
        args = {**args, "confined": True} if self.confined else args
        try:
            with self._asking:
                if self._closing:
                    raise _closed(op)
                if not wanted():
                    raise StoppedError("the request was canceled", where=f"data worker, {op}")
                self._running = (slot, number, process)
                process.send(to_line({"id": number, "op": op, "args": args}))
            while True:
                message = process.receive(deadline)
                if message.get("id") != number:
                    continue
                if "progress" in message:
                    if on_progress is not None:
                        on_progress(*message["progress"])
                elif "error" in message:
                    raise error_from_dict(message["error"])
                elif "result" in message:
                    result: dict[str, Any] = message["result"]
                    return result
        except _SilentError as silent:
            # It may be in the middle of anything; a new one is the only state that is known.
            self._drop()
            raise _too_late(op, silent.seconds) from None
        except _EndedError:
            self._drop()
            raise
        finally:
            with self._asking:
                self._running = None

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _EndedError(Exception):
    """The worker's process is gone; the text has its exit code and the end of its output."""


class _SilentError(Exception):
    """The worker gave no answer, or no sign of life, for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(seconds)


class _Process:
    """One worker process. Its answers are read by a thread, so its pipe never fills; stderr goes to a file."""

    def __init__(self, settings: Settings, idle_seconds: float, share: int) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.popen = subprocess.Popen(
            module_command("studio.data.worker", "--idle", str(idle_seconds), "--share", str(share)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=child_environment(STUDIO_HOME=str(settings.home)),
        )
        threading.Thread(target=self._read, name="data-worker-answers", daemon=True).start()

    def send(self, line: bytes) -> None:
        """Write a request. Requests are short, and the worker's reading thread always takes them."""
        if self.popen.stdin is None:
            raise _EndedError("it has no input")
        try:
            self.popen.stdin.write(line)
            self.popen.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise _EndedError(self._ending()) from error

    def receive(self, deadline: float) -> dict[str, Any]:
        """Return the next message.

        Args:
            deadline: of `time.monotonic`.

        Raises:
            _SilentError: none came until then, or the worker is stuck.
            _EndedError: it is gone.
        """
        began = time.monotonic()
        used: float | None = None
        while True:
            now = time.monotonic()
            try:
                message = self._answers.get(timeout=min(_LOOK_SECONDS, max(0.0, deadline - now)))
            except queue.Empty:
                used = cpu_seconds(self.popen.pid) if used is None else used
                waited = time.monotonic() - began
                stuck = waited > _SILENT_WALL_SECONDS or cpu_seconds(self.popen.pid) - used > SILENT_SECONDS
                if stuck or time.monotonic() >= deadline:
                    raise _SilentError(waited) from None
                continue
            if message is None:
                raise _EndedError(self._ending())
            return message

    def end(self) -> None:
        """Kill the process; it holds nothing that could be lost."""
        kill(self.popen, self.popen.stdin, self._log)

    def _read(self) -> None:
        if self.popen.stdout is not None:
            with self.popen.stdout as lines:
                for line in lines:
                    try:
                        self._answers.put(json.loads(line))
                    except ValueError:
                        break  # a line cut short by its death
        self._answers.put(None)

    def _ending(self) -> str:
        code = self.popen.wait(timeout=10)
        size = os.fstat(self._log.fileno()).st_size
        # pread: the worker shares this file's position.
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        lines = tail.decode("utf-8", "replace").strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1]}" if lines else "")


def _closed(op: str) -> StoppedError:
    return StoppedError("the studio is shutting down", where=f"data worker, {op}")


def _too_late(op: str, seconds: float | None) -> StudioError:
    waited = "" if seconds is None else f" within {seconds:.2g} s"
    return StudioError(
        f"the data worker did not answer{waited} and was restarted",
        where=f"data worker, {op}",
        fix="Check the row or file it was reading and the model's tokenizer.json, then try again",
    )
