"""Runs a server and ends it, with all that it started, when this process is asked to end or its parent is gone.

`python -m studio.export.trying.keeper --parent PID --parent-started T -- COMMAND…`. It leads a process group of its
own, which the server and its helpers are in. The kernel's signal at a parent's death would come when the *thread* of
the page that started the server ends; so the parent is looked at, and that signal is for this process's own death.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from studio.jobs.store.state import is_alive

POLL_SECONDS = 0.5
TERM_SECONDS, HELPERS_SECONDS = 8.0, 0.2
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Return the server's exit status."""
    parser = argparse.ArgumentParser(prog="python -m studio.export.trying.keeper", description=__doc__)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--parent-started", type=float, required=True)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    ending: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ending.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    # What the studio's own processes find their package by is none of the server's business.
    search = os.environ.pop("PYTHONPATH", "").split(os.pathsep)[1:]
    environment = {**os.environ, **({"PYTHONPATH": os.pathsep.join(search)} if search else {})}
    server = subprocess.Popen(
        asked.command, stdin=subprocess.DEVNULL, env=environment,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )  # fmt: skip
    while server.poll() is None:
        if ending or not is_alive(asked.parent, asked.parent_started):
            return _end_all(server)
        try:
            server.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    # A server that ended may leave helpers behind: they are of this group, too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    return int(server.returncode)


def _end_all(server: subprocess.Popen[bytes]) -> int:
    """Ask the whole group to end, then make it: this process is of it, and ends with the helpers that did not."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + TERM_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(HELPERS_SECONDS)
    os.killpg(0, signal.SIGKILL)
    return 0


def _end_with_parent() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
