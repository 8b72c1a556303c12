"""Starts servers with exports, says how they are, and ends them: at most a few, each a process group with its own log.

A server listens on a free port of 127.0.0.1 and takes questions only with the key of its process, which is in its
environment and nowhere else. Whoever holds the board ends what it started; so does the keeper of each server when the
process of the board is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from studio.errors import InputError, StoppedError, StudioError
from studio.escaping import for_terminal
from studio.export.serving.servers import arguments
from studio.export.trying.offers import Offer, offer
from studio.export.trying.programs import Tried
from studio.jobs import JobFolder
from studio.jobs.store.logs import read_tail
from studio.jobs.store.state import own_identity
from studio.processes import child_environment, module_command
from studio.settings import Settings

State = Literal["starting", "ready", "failed", "stopped"]
READY_SECONDS = 900.0  # a server that takes longer is taken for stuck
END_SECONDS = 12.0  # more than its keeper waits
MOST = 2
SHOWN_LINES = 12
_POLL_SECONDS = 0.3


@dataclass
class Trial:
    """A server that was started with an export.

    Attributes:
        job: id of the export.
        offer: what is served.
        port: of 127.0.0.1.
        key: that clients give; None where they need none.
        log: everything that the server said.
        process: its keeper, which leads its process group.
        started: by the monotonic clock.
    """

    job: str
    offer: Offer
    port: int
    key: str | None = field(repr=False)
    log: Path
    process: subprocess.Popen[bytes]
    started: float
    answered: bool = False
    stopped: bool = False
    stuck: bool = False

    @property
    def url(self) -> str:
        """Address for an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def state(self) -> State:
        """How it is now."""
        if self.stopped:
            return "stopped"
        if self.stuck or self.process.poll() is not None:
            return "failed"
        return "ready" if self.answered else "starting"

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    def lines(self) -> list[str]:
        """The last lines that it said."""
        said = [line.strip() for line in for_terminal(read_tail(self.log).text).splitlines() if line.strip()]
        return [line[:300] for line in said[-SHOWN_LINES:]]


class Trials:
    """The servers that this process started. Safe to use from several threads.

    Args:
        settings: of the home, and where the servers are installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._trials: dict[str, Trial] = {}
        atexit.register(self.close_all)

    def start(self, job: JobFolder, server: Tried, port: int = 0, keyed: bool = True) -> Trial:
        """Start a server with an export, or return the one that runs; returns at once.

        Args:
            job: the export.
            server: which one.
            port: to listen on; 0 for a free one.
            keyed: whether it answers only to those who know its key.

        Raises:
            InputError: it cannot be started, or too many are running.
        """
        wanted = offer(job, server, self._settings)
        with self._guard:
            found = self._trials.get(job.id)
            if found is not None and found.state in ("starting", "ready"):
                return found
            running = [one for one in self._trials.values() if one.state in ("starting", "ready")]
            if len(running) >= MOST:
                names = ", ".join(one.offer.served.name for one in running)
                raise InputError(
                    f"{len(running)} servers are running already ({names})",
                    fix="Stop one of them first: each holds a model in memory",
                )
            made = self._trials[job.id] = _started(job, wanted, port or _free_port(), keyed)
        threading.Thread(target=_watch, args=(made,), name="trial", daemon=True).start()
        return made

    def of(self, job_id: str) -> Trial | None:
        """The server that was started last with an export; None without one."""
        with self._guard:
            return self._trials.get(job_id)

    def stop(self, job_id: str) -> None:
        """End the server of an export; it is gone when this returns."""
        found = self.of(job_id)
        if found is not None:
            _end(found)

    def close_all(self) -> None:
        """End all of them."""
        with self._guard:
            trials = list(self._trials.values())
        for one in trials:  # all get their signal before the first is waited for
            one.stopped = True
            _signal(one, signal.SIGTERM)
        for one in trials:
            _end(one)


def wait(trial: Trial, poll: float = _POLL_SECONDS) -> None:
    """Wait until a server is ready.

    Raises:
        StudioError: it failed; the sentence has its last line.
        StoppedError: it was stopped meanwhile.
    """
    while trial.state == "starting":
        time.sleep(poll)
    if trial.state == "stopped":
        raise StoppedError("the server was stopped")
    if trial.state == "failed":
        raise StudioError(f"{trial.offer.program.title} {why_failed(trial)}", fix=f"Its log is {trial.log}")


def why_failed(trial: Trial) -> str:
    """How a server ended, and the last thing that it said."""
    said = trial.lines()
    last = f": {said[-1]}" if said else ""
    if trial.stuck:
        return f"was not ready after {READY_SECONDS:.0f} seconds{last}"
    return f"ended with exit status {trial.process.returncode}{last}"


def _started(job: JobFolder, wanted: Offer, port: int, keyed: bool) -> Trial:
    program, key = wanted.program, secrets.token_urlsafe(32) if keyed else None
    command = [*wanted.command, *arguments(wanted.served, str(wanted.path), "127.0.0.1", port), *program.more]
    pid, born = own_identity()
    keeper = module_command(
        "studio.export.trying.keeper", "--parent", str(pid), "--parent-started", repr(born), "--", *command
    )
    more = {name: value for name, value in program.environment.items() if name not in os.environ}
    environment = child_environment(**more, **({program.key: key} if key else {}))
    job.report.mkdir(exist_ok=True)
    log = job.report / f"serve-{wanted.server}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            keeper, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=job.exports, env=environment,
        )  # fmt: skip
    return Trial(job.id, wanted, port, key, log, process, time.monotonic())


def _watch(trial: Trial) -> None:
    """Notice when a server answers, and end one that never does."""
    opener: Any = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while trial.state == "starting":
        # It does not listen yet, or says that it is loading.
        with contextlib.suppress(urllib.error.URLError, OSError):
            opener.open(f"http://127.0.0.1:{trial.port}/health", timeout=5).close()
            trial.answered = trial.process.poll() is None
            return
        if trial.seconds > READY_SECONDS:
            trial.stuck = True
            _end(trial, stopped=False)
            return
        time.sleep(_POLL_SECONDS)


def _end(trial: Trial, stopped: bool = True) -> None:
    """SIGTERM to its keeper, which ends the group; SIGKILL to all of them where that takes too long."""
    if trial.process.poll() is None:
        trial.stopped = stopped
    _signal(trial, signal.SIGTERM)
    try:
        trial.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trial.process.pid, signal.SIGKILL)
        trial.process.wait()


def _signal(trial: Trial, number: signal.Signals) -> None:
    """Signal a child of ours; poll() first, so that a pid that was given to someone else is never hit."""
    if trial.process.poll() is None:
        trial.process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
