"""How the ranks of a run ended, and which of them is to blame: pure but for the files that the ranks leave.

When a rank dies, the others lose their connection to it and fail a moment later, so the loudest log is seldom the one
that says why.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from studio.errors import StoppedError, StudioError
from studio.jobs.run.causes import LESS_MEMORY, SIGNALS
from studio.jobs.run.diagnosis import oom_kills, rose
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.logs import read_tail

FOLDER = "ranks"
AGAIN = "Resume it from its last checkpoint"
Kind = Literal["completed", "stopped", "studio", "error", "cut", "dead"]
# What torch says where another rank is gone.
_CUT = re.compile(
    r"Connection (?:closed|reset) by peer|Connection closed|Broken pipe|Socket closed|\[.*gloo/transport/|"
    r"Timed out waiting|NCCL communicator was aborted|ncclRemoteError|remote process exited|connection was aborted"
)
# Signals by which the launcher itself ends ranks.
_OURS = (signal.SIGTERM,)
_QUOTED = 200  # letters of a line that is quoted
_LOG = re.compile(r"rank-(\d{1,4})\.log", re.ASCII)
_NO_LINE = "Extension modules:"  # what Python adds to the place of a crash


@dataclass(frozen=True)
class End:
    """How one rank ended, as it says itself.

    Attributes:
        kind: completed, stopped on request, a sentence of the studio, any other error, or cut off from another rank;
            dead is said of a rank of another machine by its launcher.
        what, where, fix, change: as in the errors of the studio.
        exit_code: of its process.
        line: of the job's log that tells why; None for none, and for a rank with a log of its own.
    """

    kind: Kind
    what: str = ""
    where: str = ""
    fix: str = ""
    change: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    line: int | None = None


class RankError(StudioError):
    """A rank failed (exit code 1).

    Args:
        what: which one, and how.
        fix: what to do about it.
        change: options to change; a button starts a run with them.
        line: of the job's log that tells why, None for none.
    """

    def __init__(self, what: str, *, fix: str, change: dict[str, Any] | None = None, line: int | None = None) -> None:
        super().__init__(what, fix=fix)
        self.change, self.line = change or {}, line


def log_of(job: Path, rank: int) -> Path:
    """The log of a rank: the job's own for the first one."""
    return job / "log.txt" if rank == 0 else job / FOLDER / f"rank-{rank}.log"


def ranks_with_logs(job: Path) -> list[int]:
    """The ranks whose logs a job's folder has: always the first, whose log is the job's."""
    if (job / FOLDER).is_symlink():  # which may lead out of it
        return [0]
    found = {int(match[1]) for path in (job / FOLDER).glob("rank-*.log") if (match := _LOG.fullmatch(path.name))}
    return [0, *sorted(found - {0})]


def write_end(job: Path, rank: int, end: End) -> None:
    """Leave word of how a rank ended.

    Args:
        job: folder of the job.
        rank: its number.
        end: what it says.
    """
    write_json(job / FOLDER / f"rank-{rank}.json", asdict(end))


def read_end(job: Path, rank: int) -> End | None:
    """How a rank says that it ended; None where it could not say."""
    try:
        return End(**read_json(job / FOLDER / f"rank-{rank}.json"))
    except (OSError, TypeError, ValueError):
        return None


def looks_cut(text: str) -> bool:
    """Whether an error is what one rank sees of another one's end."""
    return _CUT.search(text) is not None


def verdict(job: Path, count: int, codes: Mapping[int, int]) -> StudioError | None:
    """Say what ended a run that has ended.

    Args:
        job: folder of the job.
        count: ranks of the run.
        codes: exit status of the ranks that failed, negative for a signal.

    Returns:
        the error to raise; None where all ranks completed.
    """
    ends = {rank: read_end(job, rank) for rank in range(count)}
    killed = [rank for rank, code in codes.items() if code < 0 and -code not in _OURS and ends[rank] is None]
    if killed:
        return dead(job, killed[0], codes[killed[0]])
    said = {rank: end for rank, end in ends.items() if end is not None}
    for end in said.values():
        if end.kind == "dead":
            return RankError(end.what, fix=end.fix)
    stopped = [end for end in said.values() if end.kind == "stopped"]
    if stopped:
        return StoppedError(stopped[0].what, fix=stopped[0].fix)
    for kind in ("studio", "error", "cut"):
        for rank, end in said.items():
            if end.kind == kind:
                return _failed(job, rank, end)
    if not codes:
        return None
    rank = min(codes)
    return dead(job, rank, codes[rank])


def dead(job: Path, rank: int, code: int, first: bool = True) -> RankError:
    """A rank that died without a word.

    Args:
        job: folder of the job.
        rank: which one.
        code: its exit status, negative for a signal.
        first: whether this is the first machine, of which it was noted what its kernel had killed before.
    """
    number = -code
    if number == signal.SIGKILL:
        full = rose(JobFolder(job).environment().get("oom_kills") or {}, oom_kills()) if first else None
        how = {
            None: "was killed (SIGKILL), most often because memory was full",
            True: "was killed by the kernel because memory was full (SIGKILL)",
            False: "was killed (SIGKILL), and not by the kernel for lack of memory",
        }[full]
        fix = AGAIN if full is False else f"{AGAIN}. {LESS_MEMORY}"
    elif number in SIGNALS:
        reason, fix = SIGNALS[signal.Signals(number)]
        how = f"ended: {reason}"
    else:
        how, fix = f"ended with exit status {code}" if code >= 0 else f"ended with signal {number}", AGAIN
    return RankError(f"rank {rank} {how}; {last_words(job, rank)}", fix=fix)


def hung(job: Path, rank: int, seconds: float, place: str) -> RankError:
    """A rank that does nothing.

    Args:
        job: folder of the job.
        rank: which one.
        seconds: for how long.
        place: where in the code it stands, "" if it did not answer.
    """
    where = f", in {place}" if place else " and does not respond; it may have been suspended (SIGSTOP)"
    return RankError(f"rank {rank} has done nothing for {seconds:.0f} s{where}; {last_words(job, rank)}", fix=AGAIN)


def endless(job: Path, rank: int, seconds: float, place: str) -> RankError:
    """A rank that computes for ever.

    Args:
        job: folder of the job.
        rank: which one.
        seconds: for which all others have waited for it.
        place: where in the code it stands.
    """
    return RankError(
        f"rank {rank} is stuck computing in {place}: all others have been waiting for it for {seconds:.0f} s", fix=AGAIN
    )


def last_words(job: Path, rank: int) -> str:
    """The end of a rank's log, as a clause."""
    log = log_of(job, rank)
    lines = [line.strip() for line in read_tail(log).text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_NO_LINE)]
    return f"the last line of {log.name} is '{lines[-1][:_QUOTED]}'" if lines else f"{log.name} is empty"


def _failed(job: Path, rank: int, end: End) -> StudioError:
    if end.kind == "studio":
        error = RankError(f"{end.where}: {end.what}" if end.where else end.what, fix=end.fix, change=end.change)
        error.exit_code = end.exit_code
        return error
    if rank == 0 and end.kind == "error":
        return RankError(end.what, fix=end.fix, change=end.change, line=end.line)
    return RankError(f"rank {rank}: {end.what}; {last_words(job, rank)}", fix=end.fix or AGAIN, change=end.change)
