"""What a worker leaves behind: every process that it began, whatever group or session it has gone to.

A process group is not enough: a child may make its own, and one whose parent has died belongs to nobody. So the
supervisor writes the job's folder into the worker's environment, which children inherit, and looks for it there. A
child that empties its environment is found as long as its parents up to the worker live. A worker that was forked has
not been given its environment by the system, so what it forks in turn is found by its session.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

MARK = "STUDIO_JOB_FOLDER"


def kill_all(folder: Path, pid: int | None = None, session: int | None = None) -> int:
    """SIGKILL every process of a job.

    Args:
        folder: the job's folder.
        pid: the worker, if it still lives; its whole process group and all descendants go as well.
        session: number of a worker that is dead, which led its session.

    Returns:
        how many processes were killed.
    """
    found: dict[int, psutil.Process] = {}
    if pid is not None:
        with contextlib.suppress(psutil.Error):
            worker = psutil.Process(pid)
            found = {one.pid: one for one in [*worker.children(recursive=True), worker]}
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)  # a worker leads its own group
    if session is not None and psutil.pid_exists(session):  # another process has got the number since
        session = None
    found |= {one.pid: one for one in psutil.process_iter() if _marked(one, folder) or _in_session(one, session)}
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil compares the start time: never another process that got the id since
    return len(found)


def _marked(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and bool(process.environ().get(MARK) == str(folder))
    except (psutil.Error, OSError, ValueError):  # another user's, a kernel thread, or gone meanwhile
        return False


def _in_session(process: psutil.Process, session: int | None) -> bool:
    try:
        return session is not None and os.getsid(process.pid) == session
    except OSError:
        return False
