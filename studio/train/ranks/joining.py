"""`python -m studio.train.ranks.joining JOB_DIR NUMBER`: the launcher on every machine of a run but the first.

It meets the first one, starts this machine's ranks and ends with them. It writes nothing of the job: its ranks have
logs of their own, and what it has to say itself is on standard error and in `ranks/machine-NUMBER.log`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import JobFolder
from studio.private import begin
from studio.reach import append_in
from studio.settings import read_settings
from studio.train.ranks.ends import End, dead, read_end
from studio.train.ranks.hanging import Watch
from studio.train.ranks.launching import environment, launch, where
from studio.train.ranks.machines import log_of_machine


def main(argv: list[str]) -> int:
    """Be another machine of a run; returns the exit status, 0 where the run completed or was stopped.

    Args:
        argv: the job's folder, and the number of this machine, from 1.
    """
    begin()
    if len(argv) != 2 or not argv[1].isdecimal():
        print("usage: python -m studio.train.ranks.joining JOB_DIR NUMBER", file=sys.stderr)
        return 2
    job, number = JobFolder(Path(argv[0]).absolute()), int(argv[1])
    try:
        return _join(job, number)
    except StoppedError as error:
        _say(job, number, error.sentence)
        return 0
    except StudioError as error:
        _say(job, number, error.sentence)
        return error.exit_code


def _join(job: JobFolder, number: int) -> int:
    from studio.config import RunConfig
    from studio.config.load import build
    from studio.jobs.run.devices import require_devices

    if not (job.path / "job.yaml").is_file():
        raise InputError(
            f"there is no job in {job.path} on this machine", where=f"machine {number}",
            fix="All machines must see the same STUDIO_HOME under the same path",
        )  # fmt: skip
    training = build(RunConfig, job.request.config, "job.yaml").training
    if not 0 < number < training.nodes:
        raise InputError(
            f"this run has {training.nodes} machines, so there is no machine {number} to join",
            where="NUMBER", fix=f"Give a number from 1 to {training.nodes - 1}; the first machine runs the job itself",
        )  # fmt: skip
    problem = ""
    try:
        require_devices(training, read_settings(), one_of_several=True)
    except StudioError as error:
        problem = error.sentence

    from torch.distributed import DistError

    from studio.train.ranks.bond import Bond
    from studio.train.ranks.meeting import joined

    count = training.ranks_here
    meeting = joined(job.path, number, training.nodes, problem, lambda text: _say(job, number, text))
    try:
        bond = Bond(meeting)
        watch = Watch(job.path, count, bond)
        with environment(count, meeting.host), watch, bond:
            codes = launch(job.path, count, "env://", **where(meeting))
    except DistError as error:
        raise _lost(number) from error
    ends = {}
    for rank in range(number * count, (number + 1) * count):
        end, code = read_end(job.path, rank), codes.get(rank)
        if end is None and code is not None and rank not in bond.ended:
            word = dead(job.path, rank, code, first=False)
            end = End("dead", word.what, fix=word.fix)
        if end is not None:
            ends[rank] = end
    if watch.found is not None:
        ends[number * count] = End("dead", watch.found.what, fix=watch.found.fix)
    bond.say_end(ends, failed=bool(codes))
    over = bond.outcome()
    if over is None or bond.lost is not None:
        raise _lost(number)
    if over.get("refused"):
        kind = StoppedError if over.get("stopped") else StudioError
        raise kind(f"the run ended: {over['refused']}", where=f"machine {number}")
    _say(job, number, "the run has completed")
    return 0


def _lost(number: int) -> StudioError:
    return StudioError("the first machine is lost", where=f"machine {number}", fix="Look at the run's log")


def _say(job: JobFolder, number: int, text: str) -> None:
    line = f"{time.strftime('%H:%M:%S')}  {text}"
    print(line, file=sys.stderr, flush=True)
    log = log_of_machine(job.path, number)
    if log.parent.is_dir():
        with append_in(log.parent, log.name) as file:
            file.write(f"{line}\n".encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
