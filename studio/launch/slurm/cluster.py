"""What is asked of Slurm, and of the folder that the node writes: how a job is, a stop, and another start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.jobs import JobFolder, request_stop
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.state import JobState, write_state
from studio.launch.slurm.node import FILE
from studio.launch.ssh.machine import BrokenError
from studio.launch.ssh.there import seen

#: Of a job's folder here: the script, and the folder that the node writes.
FOLDER, SCRIPT = "slurm", "slurm.sh"
_SECONDS = 60.0
# What sbatch says of a controller that is away or busy, which may have taken the job all the same.
_UNREACHED = ("Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted", "standby mode")
# What Slurm may still start or run.
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")


def node_folder(job: JobFolder) -> JobFolder:
    """The folder that the node writes."""
    return JobFolder(job.path / FOLDER / job.id)


def script_path(job: JobFolder) -> Path:
    """The script that sbatch is given."""
    return job.path / SCRIPT


class Cluster:
    """Slurm, for one job.

    Args:
        job: the folder here.
    """

    def __init__(self, job: JobFolder) -> None:
        self._script, self.node = script_path(job), node_folder(job)

    @property
    def number(self) -> str:
        """Slurm's number of the job; "" before it was submitted."""
        try:
            found = read_json(self.node.path / FILE)
        except ValueError:
            found = None
        return str(found.get("job") or "") if isinstance(found, dict) else ""

    def submit(self) -> str:
        """Hand the script to sbatch, unless it waits in line already, and return Slurm's number.

        It may have been submitted by hand, or sbatch's answer may have been lost: two jobs would write one folder.

        Raises:
            BrokenError: Slurm does not answer now.
            InputError, StudioError: sbatch is not here, it refused the script, or it does not say a number.
        """
        if shutil.which("sbatch") is None:
            raise InputError(
                "the program sbatch is not on this machine", where="--to slurm",
                fix=f"Run this on a login node of the cluster: sbatch {self._script}",
            )  # fmt: skip
        number = self._in_line() or self._handed_over()
        write_json(self.node.path / FILE, {"job": number})
        return number

    def _in_line(self) -> str:
        """Number of a job of ours with this script that nobody knows of here; "" for none."""
        code, out, errors = _call(["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%o"])
        if code != 0:
            raise _silent(" ".join(errors.split()))
        pairs = (line.strip().partition("|") for line in out.splitlines())
        known = self.number
        return next((id for id, _, command in pairs if command == str(self._script) and id != known), "")

    def _handed_over(self) -> str:
        code, out, errors = _call(["sbatch", "--parsable", str(self._script)])
        if code != 0:
            said = " ".join(errors.split()) or f"status {code}"
            if any(one in errors for one in _UNREACHED):
                raise _silent(said)
            raise InputError(
                f"sbatch refused the run ({said})",
                where="--to slurm",
                fix="Change what the cluster is asked for with --with",
            )
        numbers = re.findall(r"^(\d+)(?:;\S*)?$", out, flags=re.MULTILINE)  # a site's own text may stand around it
        if not numbers:
            raise StudioError(
                f"sbatch did not say the job's number ({' '.join(out.split())[:200] or 'it said nothing'})",
                where="--to slurm", fix="Resume the run, which looks for it in Slurm's queue first",
            )  # fmt: skip
        return str(numbers[-1])

    def ask(
        self, operation: str, given: dict[str, Any], *, seconds: float = 120,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:  # fmt: skip
        """As `Far.ask`.

        Args:
            operation: look, stop or resume.
            given: its argument.
            seconds: not used: everything here answers soon.
            meanwhile: likewise.

        Raises:
            BrokenError: Slurm does not answer now.
            InputError: the script is refused.
        """
        if operation == "look":
            return self._look(given)
        if operation == "stop":
            return self._stop(bool(given["now"]))
        state = self.node.state()
        if state.attempt <= given["attempt"]:
            self.node.stop_path.unlink(missing_ok=True)
            write_state(self.node.state_path, JobState(created=state.created, attempt=state.attempt + 1))
            try:
                self.submit()
            except StudioError:
                write_state(self.node.state_path, state)  # whoever asks again must not find it done
                raise
        return {}

    def _look(self, given: dict[str, Any]) -> dict[str, Any]:
        word, reason = self._queued()
        found = seen(self.node, given)
        if word:  # what was preempted looks stopped, and goes on
            found["final"] = found["final"] and found["state"]["status"] == "completed"
        elif not found["final"]:
            self._lose()
            found = seen(self.node, given)
        asked = self.node.asked_stop() or {}
        if found["final"] and found["state"]["status"] == "stopped" and asked.get("why") == "time limit":
            found["state"] |= {
                "reason": "Slurm's time limit was reached, so the step was finished and saved",
                "fix": "Resume the run, which submits it again",
            }
        return found | {"waiting": f"waiting in Slurm's queue ({reason})" if word in _WAITING else ""}

    def _lose(self) -> None:
        """Record the end of a job that Slurm ended before the node could say how."""
        state = self.node.state()
        if not state.final:
            if self.node.stop_path.exists():
                end = {"status": "stopped", "reason": "Slurm ended the job before its last step was saved"}
            else:
                end = {"status": "lost", "reason": f"Slurm ended job {self.number}, and the run left no explanation"}
            fix = f"See {self.node.path.parent / 'slurm.log'}; the run can be resumed from its last checkpoint"
            write_state(self.node.state_path, state.with_(**end, fix=fix, finished=time.time()))

    def _stop(self, now: bool) -> dict[str, Any]:
        request_stop(self.node, now=now)
        word, _ = self._queued()
        if now or word in _WAITING:
            _call(["scancel", self.number])
        return {}

    def _queued(self) -> tuple[str, str]:
        """State of the job and why it waits, as Slurm calls them; empty once Slurm has done with it."""
        code, out, errors = _call(["squeue", "--noheader", "--jobs", self.number, "--format", "%T|%r"])
        if code != 0 and "Invalid job id" not in errors:
            raise _silent(" ".join(errors.split()))
        line = [one for one in out.splitlines() if "|" in one][-1:]
        word, _, reason = line[0].strip().partition("|") if line else ("", "", "")
        return word, reason


def _silent(said: str) -> BrokenError:
    return BrokenError(f"Slurm does not respond ({said})", where="--to slurm", fix="Try sinfo")


def _call(command: list[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise StudioError(f"the program {command[0]} is missing here", fix="Use a login node of the cluster") from error
    except subprocess.TimeoutExpired as error:
        raise _silent(command[0]) from error
    return done.returncode, done.stdout, done.stderr
