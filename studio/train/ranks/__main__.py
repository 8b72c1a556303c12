"""`python -m studio.train.ranks JOB_DIR MEETING`: one rank of a run, started by torch's elastic launcher.

The first rank writes the job's state, events and log; every other one has a log of its own and is silent otherwise.
How a rank ended is a file that the launcher reads (`ends`). A rank never outlives its launcher.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from studio.errors import StoppedError, StudioError
from studio.jobs.run.diagnosis import from_exception
from studio.jobs.run.worker import JobContext, peak_memory_bytes
from studio.jobs.store.folder import JobFolder
from studio.models.catalog.quiet import quiet_imports
from studio.private import begin
from studio.reach import append_in, reading_as_asked
from studio.settings import Settings, read_settings
from studio.train.ranks.ends import End, log_of, looks_cut, write_end

LOOK_SECONDS = 0.5
# Whoever lost the connection waits for the launcher to see who was lost, and to end the others.
GRACE_SECONDS = 6.0
# So long a rank that failed may take to end.
LEAVE_SECONDS = 5.0


class OtherRank(JobContext):
    """What the work sees of its job on every rank but the first: it may read all of it, and writes its own log."""

    def __init__(self, job: JobFolder, settings: Settings) -> None:
        self.job, self.settings = job, settings
        self.config: dict[str, Any] = job.request.config

    def event(self, kind: str, **fields: Any) -> None:
        """Nothing: the first rank tells it."""

    def environment(self, **values: Any) -> None:
        """Nothing: the first rank notes it."""

    def set_state(self, **changes: Any) -> None:
        """Nothing: the state is the launcher's and the first rank's."""

    def should_stop(self) -> bool:
        """False: the first rank looks, and all of them agree after a step."""
        return False


def main(argv: list[str]) -> int:
    """Run one rank; returns its exit status, 0 also for a run that was stopped.

    Args:
        argv: the job's folder, and where the ranks meet, as `sharing.begin` takes it.
    """
    begin()
    job, rank = JobFolder(Path(argv[0]).absolute()), int(os.environ["RANK"])
    if rank:
        _write_to(log_of(job.path, rank))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # asked by the launcher where nothing moves
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    quiet_imports()
    settings = read_settings()
    context = OtherRank(job, settings) if rank else JobContext(job, settings)
    try:
        try:
            with reading_as_asked(settings, job.request.roots):
                _work(context, argv[1])
        finally:  # the plan is that of one process, and the first rank holds as much as any
            kept = job.environment().get("peak_memory_bytes", 0)
            context.environment(peak_memory_bytes=max(peak_memory_bytes(), kept))
    except StoppedError as error:
        write_end(job.path, rank, End("stopped", error.what, fix=error.fix))
        return 0
    except StudioError as error:
        change = getattr(error, "change", {})
        write_end(job.path, rank, End("studio", error.what, error.where, error.fix, change, error.exit_code))
        return error.exit_code
    except BaseException as error:  # the boundary of the process
        traceback.print_exc()
        sys.stderr.flush()
        found = from_exception(error, job.log_path if rank == 0 else None, job.environment(), job.state().log_start)
        cut = looks_cut(str(error))
        write_end(
            job.path, rank, End("cut" if cut else "error", found.reason, "", found.fix, found.change, 1, found.line)
        )
        if cut:
            time.sleep(GRACE_SECONDS)
        return 1
    write_end(job.path, rank, End("completed"))
    return 0


def _work(context: JobContext, meeting: str) -> None:
    with context.phase("loading libraries"):
        from studio.train.ranks import sharing
        from studio.train.worker import train

        sharing.begin(meeting)
    train(context)
    sharing.end()


def _write_to(log: Path) -> None:
    """Send what is printed, by Python or by a library, to a log."""
    with append_in(log.parent, log.name) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def _end_with(parent: int) -> None:
    """End at once when the launcher is gone, even in the middle of a wait for another rank."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code:  # a broken process group may be waited for until nobody knows when
        faulthandler.dump_traceback_later(LEAVE_SECONDS, exit=True)
    raise SystemExit(code)
