"""What the page, the command line and scripts do with jobs: submit, stop, wait.

They never start the work themselves: they write a folder and make sure that a supervisor runs. So no request,
thread or terminal owns a job.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from filelock import Timeout

from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.folder import JobFolder, create_job
from studio.jobs.store.request import Kind
from studio.jobs.store.state import JobState, is_alive
from studio.locks import PATIENCE, held, holder_of, make_lock
from studio.private import make_home
from studio.processes import child_environment, module_command
from studio.settings import Settings

AHEAD_SECONDS = 300.0  # for how long the libraries are kept imported for somebody who may start a training
STARTING_SECONDS = 60.0  # a supervisor that takes longer is given up: another one is started
_STARTED: dict[Path, tuple[subprocess.Popen[bytes], float]] = {}


def submit(settings: Settings, kind: Kind, name: str, config: dict[str, Any], group: str = "") -> JobFolder:
    """Queue a job and make sure that it will be started; `group` is what the runs of one sweep have in common.

    Args:
        settings: of the home.
        kind: train, evaluate, export or merge.
        name: the person's name for it, as in `create_job`.
        config: plain values, as they are written to the job's request.
        group: id shared by the runs of a sweep; empty for a single job.

    Raises:
        InputError: the name cannot be used.
        OSError: the home cannot be written.
    """
    job = create_job(settings.jobs, kind, name, config, group=group)
    ensure_supervisor(settings)
    return job


def ensure_supervisor(settings: Settings) -> None:
    """Start a supervisor for this home unless one holds its lock.

    The job's folder must be written before: a supervisor that is about to leave looks once more after it has
    given up the lock, so either it sees the job or we see the lock free.

    Raises:
        HeldError: somebody else than a supervisor holds its lock, so no job would ever be started.
        OSError: the home cannot be written.
    """
    make_home(settings.home)
    lock, began = make_lock(supervisor_lock(settings.home)), time.monotonic()
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if _supervised(settings.home):
                return
        if time.monotonic() - began > PATIENCE:
            path = supervisor_lock(settings.home)
            raise held(path, "no job of this home can be started", holder_of(path))
        time.sleep(0.1)
    lock.release()
    if _is_starting(settings.home):
        return
    with (settings.home / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            module_command("studio.jobs.run.supervisor"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=settings.home,
            env=child_environment(STUDIO_HOME=str(settings.home)),
        )  # fmt: skip
    _STARTED[settings.home] = process, time.monotonic()


def get_ready(settings: Settings) -> None:
    """Let the supervisor import the libraries of a training, which whoever asks may start soon.

    Raises:
        HeldError, OSError: as `ensure_supervisor`.
    """
    make_home(settings.home)
    _ahead(settings.home).touch()
    ensure_supervisor(settings)


def wanted_ahead(home: Path) -> bool:
    """Whether somebody may start a training soon."""
    try:
        return abs(time.time() - _ahead(home).stat().st_mtime) < AHEAD_SECONDS
    except OSError:
        return False


def _ahead(home: Path) -> Path:
    return home / "ahead"


def _is_starting(home: Path) -> bool:
    """Whether the supervisor that this process started last has not come to its lock yet, as on a busy machine.

    One that had the lock and gave it up may be about to leave, so it does not count.
    """
    process, began = _STARTED.get(home, (None, 0.0))
    if process is None or process.poll() is not None or time.monotonic() - began > STARTING_SECONDS:
        return False
    try:
        found = read_json(supervisor_record(home))
    except (OSError, ValueError):
        return True
    return not isinstance(found, dict) or found.get("pid") != process.pid


def supervisor_lock(home: Path) -> Path:
    """File that the one supervisor of a home holds locked."""
    return home / "supervisor.lock"


def supervisor_record(home: Path) -> Path:
    """File in which the supervisor that holds the lock says which process it is."""
    return home / "supervisor.json"


def _supervised(home: Path) -> bool:
    """Whether a supervisor has the lock of a home, and nobody else."""
    holder = holder_of(supervisor_lock(home))
    if holder is not None and (holder.foreign or "studio.jobs.run.supervisor" in holder.command.split()):
        return not holder.foreign
    try:
        found = read_json(supervisor_record(home))
        pid, start = int(found["pid"]), float(found["start"])
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return is_alive(pid, start) and (holder is None or holder.pid == pid)


def request_stop(job: JobFolder, *, now: bool = False) -> None:
    """Ask a job to stop: finish the step and save. With `now`, do not wait for that (SIGTERM, then SIGKILL).

    Stopping is confirmed by the state, not by this call.
    """
    if not job.state().final:
        write_json(job.stop_path, {"asked": time.time(), "now": now})


def wait(job: JobFolder, seconds: float | None = None) -> JobState:
    """Wait until a job is over and return its state; after `seconds` return whatever it is then."""
    end = None if seconds is None else time.monotonic() + seconds
    while not (state := job.state()).final and (end is None or time.monotonic() <= end):
        time.sleep(0.2)
    return state
