"""The data worker: `python -m studio.data.worker.__main__`, a warm process that tokenizes for the page.

It reads requests from standard input and answers on standard output (`wire`), and says twice a second that it lives.
A request that is cancelled ends where it next tells its progress, and what was loaded for it stays. The worker leaves
when its input ends, even in the middle of an answer, so it never outlives the page, and when nobody asked anything for
`--idle` seconds. It keeps torch out: the tokenizer does not need it, and it would cost 190 MB and 2 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from studio.data.tokens.boundedtokens import spoiled
from studio.data.wire import error_to_dict, to_line
from studio.errors import StoppedError, StudioError
from studio.models.device.machine import memory
from studio.private import begin

LEAST_BYTES = 4_000_000_000
ALIVE_SECONDS = 0.5
# A worker that is started for whoever comes next gets no request for so long.
_AT_ONCE_SECONDS = 0.3


def main(arguments: list[str] | None = None) -> int:
    """Answer requests until the input ends or the idle time is over; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studio.data.worker", description=__doc__)
    parser.add_argument("--idle", type=float, default=900.0, help="seconds without a request before it exits")
    parser.add_argument("--share", type=int, default=2, help="its memory limit is the machine's memory divided by this")
    given = parser.parse_args(arguments)
    idle: float = given.idle
    begin()
    # Ctrl-C in the terminal is for the page, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not stand between the answers.
    answers = _Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    # transformers takes a missing torch for what it is and loads tokenizers without it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]

    from studio.data.worker.whole import WholeOperations

    limit_memory(given.share)
    operations = WholeOperations()
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests, cancelled), daemon=True).start()
    threading.Thread(target=answers.live, daemon=True).start()
    try:
        first: dict[str, Any] | None = requests.get(timeout=min(idle, _AT_ONCE_SECONDS))
    except queue.Empty:
        first = None
        from transformers import AutoTokenizer  # noqa: F401 - most of what a first answer waits for
    while True:
        try:
            request = first or requests.get(timeout=idle)
        except queue.Empty:
            return 0
        first = None
        _answer(operations, request, cancelled, answers)
        if spoiled.is_set():  # a thread of the tokenizer is at work for good
            os._exit(0)


class _Answers:
    """What is written to the page, a line at a time from two threads."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._number: int | None = None

    def begin(self, number: int | None) -> None:
        """Say which request is at work; None for none."""
        self._number = number

    def write(self, message: dict[str, Any]) -> None:
        """Write a message."""
        line = to_line(message)
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def live(self) -> None:
        """Say that the request at work goes on, for as long as this process runs Python."""
        while True:
            time.sleep(ALIVE_SECONDS)
            if self._number is not None:
                self.write({"id": self._number, "alive": True})


def limit_memory(share: int = 2) -> int:
    """Let this process take a part of the machine's memory (half, a quarter …), 4 GB at least; returns the bytes.

    A template can make a text of any length in one step, and the machine is shared with a training.
    """
    limit = max(LEAST_BYTES, memory()[0] // share)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return limit


def _listen(requests_in: BinaryIO, requests: queue.Queue[dict[str, Any]], cancelled: set[int]) -> None:
    for line in requests_in:
        request = json.loads(line)
        if "cancel" in request:
            cancelled.add(request["cancel"])
        else:
            requests.put(request)
    # The page is gone; nobody waits for what is being computed.
    os._exit(0)


def _answer(operations: Any, request: dict[str, Any], cancelled: set[int], answers: _Answers) -> None:
    number = request["id"]
    answers.begin(number)

    def progress(name: str, done: float, total: float | None) -> None:
        if number in cancelled:
            raise StoppedError("the request was canceled", where=f"data worker, {request['op']}")
        answers.write({"id": number, "progress": [name, done, total]})

    try:
        reply = {"id": number, "result": operations.run(request["op"], request["args"], progress)}
    except StudioError as error:
        reply = {"id": number, "error": error_to_dict(error)}
    except MemoryError:
        many = StudioError(
            "this needs more memory than a data worker may use",
            where=f"data worker, {request['op']}", fix="Use fewer or shorter rows",
        )  # fmt: skip
        reply = {"id": number, "error": error_to_dict(many)}
    except BaseException as error:  # a bug of ours, or a panic of Rust, must not end the worker for everybody
        traceback.print_exc()
        ours = StudioError(
            f"the data worker failed: {type(error).__name__}: {error}",
            where=f"data worker, {request['op']}",
            fix="This is a bug in the studio; please report it with the row that caused it",
        )
        reply = {"id": number, "error": error_to_dict(ours)}
    answers.begin(None)
    answers.write(reply)


if __name__ == "__main__":
    raise SystemExit(main())
