"""Jinja in a process of its own: it may take seconds and megabytes, and neither this process nor anybody waits longer.

A template can stay in a single call into C for minutes (`"%1000000000d" % 1`), where no thread and no signal handler
of its process comes to run. So it is ended from outside, and a new process renders the next row.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.child import HEAD, LENGTH, MAX_CHARACTERS, NO_MEMORY, READY, REFUSED, too_long
from studio.errors import StudioError
from studio.processes import child_environment, cpu_seconds, kill, module_command

# On a busy machine two seconds of work take longer; nobody waits more than this.
_MOST_WALL_SECONDS = 4.0
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05
# Items are sent together up to so many bytes.
_SENT_BYTES = 8 * 1024**2
_MOST_BYTES = 4 * MAX_CHARACTERS
# What Python and Jinja need; keys and tokens of the environment are none of it.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LC_TIME", "TZ", "SYSTEMROOT", "TMPDIR")


class Refusal(str):
    """What a template raised, in place of a text."""


class Sandbox:
    """The process that renders; started by the first call, replaced when it had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def render(
        self, kind: str, template: str, shared: Mapping[str, Any], items: Sequence[Mapping[str, Any]], budget: Budget
    ) -> list[str]:
        """Render a template for each item.

        Args:
            kind: "chat" (as transformers renders) or "line" (over columns).
            template: Jinja.
            shared: values that all items have, plain ones.
            items: the values of each.
            budget: what the rows may take; CPU time is taken off it.

        Returns:
            the texts; a `Refusal` where the template raised an error.

        Raises:
            OutOfBoundsError: one of them took too much; `at` says which.
            StudioError: the process cannot be started.
        """
        done: list[str] = []
        with self._lock:
            for group in _groups(items):
                self._render(kind, template, shared, group, budget, done)
        return done

    def close(self) -> None:
        """End the process; the next call starts another."""
        with self._lock:
            self._drop()

    def _render(
        self, kind: str, template: str, shared: Mapping[str, Any], group: list[bytes], budget: Budget, done: list[str]
    ) -> None:
        request = pickle.dumps((kind, template, dict(shared), group))
        try:
            child = self._sent(request)
            for item in group:
                budget.begin(len(item))
                done.append(child.text(budget))
        except OutOfBoundsError as error:
            error.at = len(done)
            self._drop()
            raise
        except BaseException:
            self._drop()
            raise

    def _sent(self, request: bytes) -> _Child:
        """The process with its request; one that had been killed meanwhile is replaced."""
        if self._child is not None:
            try:
                self._child.send(request)
                return self._child
            except BrokenPipeError:
                self._drop()
        self._child = _Child()
        self._child.send(request)
        return self._child

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


class _Child:
    def __init__(self) -> None:
        environment = child_environment()
        self.popen = subprocess.Popen(
            module_command("studio.data.sandbox.child"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={name: environment[name] for name in _ENVIRONMENT if name in environment},
        )  # fmt: skip
        self._read = b""
        code, _, _ = self._answer(_START_SECONDS, _START_SECONDS)
        if code != READY:
            raise StudioError("the template process did not start", where="chat template")

    def send(self, request: bytes) -> None:
        """Give it items to render."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(LENGTH.pack(len(request)) + request)
        self.popen.stdin.flush()

    def text(self, budget: Budget) -> str:
        """Return the next item's text, or what the template raised.

        Raises:
            OutOfBoundsError: it takes more time, memory or room than it may.
        """
        code, seconds, text = self._answer(max(0.0, budget.left), _MOST_WALL_SECONDS)
        budget.spend(seconds)
        if code == NO_MEMORY:
            raise OutOfBoundsError("needs more memory than a row may use")
        return Refusal(text) if code == REFUSED else text

    def end(self) -> None:
        """Kill it."""
        kill(self.popen, self.popen.stdin, self.popen.stdout)

    def _answer(self, seconds: float, most: float) -> tuple[int, float, str]:
        code, microseconds, length = HEAD.unpack(self._take(HEAD.size, seconds, most))
        if length > _MOST_BYTES:
            raise OutOfBoundsError(too_long())
        return (
            code,
            microseconds / 1e6,
            self._take(length, _START_SECONDS, _START_SECONDS).decode("utf-8", "surrogatepass"),
        )

    def _take(self, size: int, seconds: float, most: float) -> bytes:
        """The next bytes of its output; `seconds` of CPU time and `most` of waiting are allowed for them."""
        assert self.popen.stdout is not None
        pipe, began, used = self.popen.stdout.fileno(), time.monotonic(), None
        while len(self._read) < size:
            if not select.select([pipe], [], [], _LOOK_SECONDS)[0]:
                waited = time.monotonic() - began
                used = cpu_seconds(self.popen.pid) if used is None else used
                if waited > most or (
                    waited > seconds and cpu_seconds(self.popen.pid) - used + 2 * _LOOK_SECONDS > seconds
                ):
                    raise OutOfBoundsError("takes more than the two seconds a row may take")
                continue
            data = os.read(pipe, 1 << 20)
            if not data:
                raise _ended()
            self._read += data
        taken, self._read = self._read[:size], self._read[size:]
        return taken


def _ended() -> OutOfBoundsError:
    return OutOfBoundsError("crashed the process that renders it")


def _groups(items: Sequence[Mapping[str, Any]]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for item in items:
        group.append(pickle.dumps(dict(item)))
        size += len(group[-1])
        if size > _SENT_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


SANDBOX = Sandbox()
