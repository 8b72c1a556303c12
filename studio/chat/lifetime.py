"""When a chat server ends by itself: nobody used it for a while, or the process that wanted it is gone.

It keeps no model in memory for nobody. The ready file is how it says on which port it listens.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from studio.jobs.store.files import write_json
from studio.jobs.store.state import is_alive, process_start

POLL_SECONDS = 0.5
GRACE_SECONDS = 5.0


class Lifetime:
    """Watches idle time and parent in a thread.

    Args:
        idle: seconds without a request after which the process ends; 0 for never.
        parent: pid whose end ends this process; None for none.
        parent_started: its start as `process_start` gives it, so that a reused pid is not taken for it.
    """

    def __init__(self, idle: float, parent: int | None = None, parent_started: float | None = None) -> None:
        self._idle = idle
        self._parent, self._parent_started = parent, parent_started
        self._used = time.monotonic()
        self._end: Callable[[], None] | None = None
        self._busy: Callable[[], bool] = lambda: False

    def touch(self) -> None:
        """Somebody uses the model now."""
        self._used = time.monotonic()

    def watch(self) -> None:
        """Start watching; until `serving` is called an ended parent ends the process at once (it still loads)."""
        threading.Thread(target=self._run, name="lifetime", daemon=True).start()

    def serving(self, end: Callable[[], None], busy: Callable[[], bool]) -> None:
        """From now on end through `end`, and count as used while `busy`."""
        self.touch()
        self._busy, self._end = busy, end

    def _run(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            if not self._parent_lives():
                self._finish("the process that started this server has exited")
            if self._end is None or self._busy():
                self.touch()
            elif self._idle and time.monotonic() - self._used > self._idle:
                self._finish(f"no request for {self._idle:g} s")

    def _finish(self, reason: str) -> None:
        print(f"chat: ending, {reason}", flush=True)
        if self._end is not None:
            self._end()
            time.sleep(GRACE_SECONDS)
        os._exit(0)

    def _parent_lives(self) -> bool:
        if self._parent is None:
            return True
        if self._parent_started is None:
            return process_start(self._parent) is not None
        return is_alive(self._parent, self._parent_started)


def write_ready(path: Path, port: int, models: tuple[str, ...]) -> None:
    """Write {"port", "pid", "models"} in one piece: a reader sees the whole file or none.

    Args:
        path: of the file, watched by whoever started the server.
        port: the server listens on, chosen by the system.
        models: ids it answers to.
    """
    write_json(path, {"port": port, "pid": os.getpid(), "models": list(models)})
