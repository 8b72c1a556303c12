"""The one process of a home that starts queued jobs and sees to their end.

It is started by whoever submits a job, lives in a session of its own, holds the home's lock, and leaves when
nothing is to be done. If it is killed, the jobs go on: the next one finds them again by process id and start
time. It never writes the state of a job whose worker lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.jobs.client import supervisor_lock
from studio.jobs.diagnosis import diagnose
from studio.jobs.events import EventWriter
from studio.jobs.files import read_json
from studio.jobs.folder import JobFolder, list_jobs
from studio.jobs.notify import expect_end, tell_end
from studio.jobs.state import JobState, write_state
from studio.settings import Settings, read_settings

POLL_SECONDS = 0.25
IDLE_SECONDS = 10.0
# How long a job may take to finish its step and save before it is told by signal.
ASK_SECONDS = 120.0
TERM_SECONDS = 15.0
# A worker writes its state within a moment; one that has not after this long never began.
START_SECONDS = 60.0


@dataclass
class _Stop:
    """How far the stopping of one job has gone, in monotonic seconds."""

    asked: float
    termed: float | None = None
    killed: bool = False


# Threads that spin while they wait take the processor from each other on a busy machine: a step beside other work
# took up to thirty times as long. A value in the environment wins.
_WORKER_ENV = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def worker_command(job: JobFolder) -> list[str]:
    """The command line of a job's process."""
    return [sys.executable, "-m", f"studio.{job.request.kind}", str(job.path)]


class Supervisor:
    """Starts the oldest queued job when no other runs, and finishes the records of dead ones."""

    def __init__(self, settings: Settings, command: Callable[[JobFolder], list[str]] = worker_command) -> None:
        self.settings, self._command = settings, command
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stops: dict[str, _Stop] = {}
        self._over: dict[str, int] = {}  # when the state of a job that is over was written

    def step(self) -> bool:
        """Look once at every unfinished job; return True while there is one."""
        queued: list[JobFolder] = []
        active = 0
        for job in list_jobs(self.settings.jobs):
            if self._over.get(job.id) == _written(job):
                continue
            state = job.state()
            if state.final:
                self._forget(job)
            elif state.status == "queued":
                queued.append(job)
            elif self._is_gone(job, state):
                self._bury(job)
            else:
                active += 1
                self._press_stop(job, state)
        for job in [job for job in queued if job.stop_path.exists()]:
            self._close(job, "stopped", "it was stopped before it began")
            queued.remove(job)
        if queued and not active:
            self._start(min(queued, key=lambda job: (job.state().created, job.id)))
            active = 1
        return bool(active or queued)

    def _start(self, job: JobFolder) -> None:
        write_state(job.state_path, job.state().with_(status="starting", started=time.time()))
        expect_end(self.settings, job)
        with job.log_path.open("ab") as log:
            self._children[job.id] = subprocess.Popen(
                self._command(job),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=job.path,
                env={**_WORKER_ENV, **os.environ, "STUDIO_HOME": str(self.settings.home), "STUDIO_WEBHOOK": ""},
            )  # fmt: skip

    def _is_gone(self, job: JobFolder, state: JobState) -> bool:
        child = self._children.get(job.id)
        if child is not None:
            return child.poll() is not None
        if state.pid is not None:
            return not state.alive()
        return time.time() - (state.started or 0.0) > START_SECONDS

    def _bury(self, job: JobFolder) -> None:
        """Record the end of a job whose worker died without saying how it ended."""
        state = job.state()
        if state.final:  # written in the moment between our look and its death
            return self._forget(job)
        child = self._children.get(job.id)
        code = None if child is None else child.returncode
        if job.stop_path.exists():
            return self._close(job, "stopped", "it was stopped by force, so its last step was not saved", code)
        found = diagnose(code, job.log_path, job.environment())
        status = "lost" if code is None else "failed"
        return self._close(job, status, found.reason, code, found.fix, change=found.change, line=found.line)

    def _close(
        self, job: JobFolder, status: str, reason: str, code: int | None = None, fix: str = "", **more: Any
    ) -> None:
        end = {"status": status, "reason": reason, "fix": fix, "exit_code": code, "finished": time.time(), **more}
        write_state(job.state_path, job.state().with_(**end))
        writer = EventWriter(job.events_path)
        writer.write("done", status=status, reason=reason, fix=fix)
        writer.close()
        self._forget(job)

    def _forget(self, job: JobFolder) -> None:
        child = self._children.get(job.id)
        if child is not None and child.poll() is None:
            return  # the state is final but the process is still closing down
        self._children.pop(job.id, None)
        self._stops.pop(job.id, None)
        self._over[job.id] = _written(job)
        tell_end(self.settings, job)

    def _press_stop(self, job: JobFolder, state: JobState) -> None:
        """Go on with the phases of a stop: asked, SIGTERM, SIGKILL of the process group."""
        asked = read_json(job.stop_path) if job.stop_path.exists() else None
        if not isinstance(asked, dict) or state.pid is None or not state.alive():
            return
        now = time.monotonic()
        stop = self._stops.setdefault(job.id, _Stop(asked=now))
        if stop.termed is None:
            if asked.get("now") or now - stop.asked > ASK_SECONDS:
                os.kill(state.pid, signal.SIGTERM)
                stop.termed = now
        elif not stop.killed and now - stop.termed > TERM_SECONDS:
            os.killpg(state.pid, signal.SIGKILL)  # a worker leads its own group
            stop.killed = True


def _written(job: JobFolder) -> int:
    try:
        return job.state_path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def supervise(settings: Settings) -> None:
    """Run until there has been nothing to do for a while; return at once if another one runs."""
    lock = FileLock(supervisor_lock(settings.home))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return
    supervisor = Supervisor(settings)
    last_work = time.monotonic()
    while True:
        if supervisor.step():
            last_work = time.monotonic()
        elif time.monotonic() - last_work > IDLE_SECONDS:
            lock.release()
            # Whoever submitted just before the release saw the lock held and relied on us: look once more.
            if all(job.state().final for job in list_jobs(settings.jobs)):
                return
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return
            last_work = time.monotonic()
        time.sleep(POLL_SECONDS)


def main() -> int:
    """`python -m studio.jobs.supervisor`: supervise STUDIO_HOME."""
    settings = read_settings()
    Path(settings.jobs).mkdir(parents=True, exist_ok=True)
    supervise(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
