"""`python -m studio.launch.slurm.node JOB_DIR`: the run on a node, at first and once more after a preemption.

It is what the supervisor is on a machine of one's own: it starts the training as a process and writes how that ended
where the training could not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from studio.jobs import JobFolder
from studio.jobs.run.diagnosis import diagnose
from studio.jobs.store.files import size_of, write_json
from studio.jobs.store.state import JobState, write_state
from studio.private import begin
from studio.processes import child_environment, module_command
from studio.reach import append_in

#: In the job's folder: which job of Slurm works on it.
FILE = "slurm.json"


def run(job: JobFolder) -> int:
    """Train until it is over or stopped; returns the exit status of the training, 0 where nothing was left to do.

    Raises:
        OSError: the folder cannot be written.
    """
    state = job.state()
    if state.status == "completed":
        return 0
    write_json(job.path / FILE, {"job": os.environ.get("SLURM_JOB_ID", "")})
    asked = job.asked_stop()
    if asked is not None and asked.get("why"):  # of a start before this one
        job.stop_path.unlink()
    elif asked is not None:
        write_state(job.state_path, state.with_(status="stopped", reason="it was stopped before it started"))
        return 0
    if state.status != "queued":
        state = JobState(created=state.created, attempt=state.attempt + 1)
    started = {"started": time.time(), "log_start": size_of(job.log_path)}
    write_state(job.state_path, state.with_(status="starting", **started))
    # Slurm signals every process of a step; the training is told by itself.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with append_in(job.path, job.log_path.name) as log:
        code = subprocess.call(
            module_command("studio.train", str(job.path)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=job.path, env=child_environment(),
        )  # fmt: skip
    state = job.state()
    if not state.final:
        found = diagnose(code, job.log_path, job.environment(), start=state.log_start)
        end = {"reason": found.reason, "fix": found.fix, "change": found.change, "line": found.line}
        write_state(
            job.state_path, state.with_(status="failed", exit_code=code, finished=time.time(), **end)
        )  # fmt: skip
    return code


def main(job: JobFolder) -> int:
    """Be a task of the run: the first one is the run itself, any other comes to it."""
    number = int(os.environ.get("SLURM_PROCID") or 0)
    if number == 0:
        return run(job)
    if job.state().status == "completed":
        return 0
    command = module_command("studio.train.ranks.joining", str(job.path), str(number))
    os.execve(command[0], command, child_environment())


if __name__ == "__main__":
    begin()
    raise SystemExit(main(JobFolder(Path(sys.argv[1]).absolute())))
