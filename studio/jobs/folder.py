"""A job's folder: names, paths, and what was asked for.

The folder is the database (design section 2): nothing about a job is kept anywhere else, so that it can be
copied to another machine and read there.
"""

from __future__ import annotations

import difflib
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from studio.errors import InputError
from studio.jobs.files import read_json, write_atomic
from studio.jobs.state import JobState, read_state, write_state

Kind = Literal["train", "evaluate", "export"]
KINDS: tuple[Kind, ...] = ("train", "evaluate", "export")


@dataclass(frozen=True)
class JobRequest:
    """Content of job.yaml: what was asked. Never changes."""

    kind: Kind
    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class JobFolder:
    """One job, by its folder."""

    path: Path

    @property
    def id(self) -> str:
        """Name of the folder, unique within a home: time and name."""
        return self.path.name

    @cached_property
    def request(self) -> JobRequest:
        """What was asked for.

        Raises:
            InputError: job.yaml is missing or was edited into something else.
        """
        try:
            raw = YAML(typ="safe").load((self.path / "job.yaml").read_text(encoding="utf-8"))
            return JobRequest(kind=raw["kind"], name=raw["name"], config=raw["config"])
        except (OSError, KeyError, TypeError, ValueError, YAMLError) as error:
            raise InputError("job.yaml cannot be read, so this is not a job folder", where=str(self.path)) from error

    @property
    def scores(self) -> bool:
        """Whether the job trains a model that scores answers instead of writing them (method reward)."""
        return bool((self.request.config.get("method") or {}).get("name") == "reward")

    def state(self) -> JobState:
        """Read where the job is now."""
        return read_state(self.state_path)

    def environment(self) -> dict[str, Any]:
        """Versions, device, plan and measured peak; empty before the worker wrote them, or if the file is damaged."""
        try:
            found = read_json(self.environment_path)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def state_path(self) -> Path:
        """state.json."""
        return self.path / "state.json"

    @property
    def events_path(self) -> Path:
        """events.jsonl."""
        return self.path / "events.jsonl"

    @property
    def log_path(self) -> Path:
        """log.txt, the process's output."""
        return self.path / "log.txt"

    @property
    def environment_path(self) -> Path:
        """environment.json."""
        return self.path / "environment.json"

    @property
    def stop_path(self) -> Path:
        """The file whose presence asks the job to stop."""
        return self.path / "stop"

    @property
    def checkpoints(self) -> Path:
        """Folder of states from which training can go on."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the result: an adapter, or a full checkpoint."""
        return self.path / "model"

    @property
    def exports(self) -> Path:
        """Folder of exported files."""
        return self.path / "exports"

    @property
    def report(self) -> Path:
        """Folder of reports."""
        return self.path / "report"


def create_job(jobs: Path, kind: Kind, name: str, config: dict[str, Any]) -> JobFolder:
    """Make a job's folder in state `queued`.

    Args:
        jobs: folder of all jobs.
        kind: what kind of work.
        name: the person's name for it; letters, digits, dot, dash and underscore are kept.
        config: full config of that kind.

    Raises:
        InputError: the name has nothing to make a folder name of.
    """
    slug = _slug(name)
    if not slug:
        raise InputError(f"'{name}' is not a name", where="name", fix="Use at least one letter or digit")
    jobs.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        path = jobs / (f"{stamp}-{slug}" if attempt == 1 else f"{stamp}-{slug}-{attempt}")
        try:
            path.mkdir()
            break
        except FileExistsError:
            continue
    job = JobFolder(path)
    yaml = YAML()
    yaml.default_flow_style = False
    with (path / "job.yaml").open("w", encoding="utf-8") as file:
        yaml.dump({"kind": kind, "name": name, "config": config}, file)
    write_atomic(job.events_path, "")
    write_state(job.state_path, JobState(status="queued"))
    return job


def _slug(name: str) -> str:
    """What a folder's name has of a job's."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:60]


def list_jobs(jobs: Path) -> list[JobFolder]:
    """Return all jobs, newest first. Folders without state.json are still being made and are left out."""
    if not jobs.is_dir():
        return []
    return [JobFolder(path) for path in sorted(jobs.iterdir(), reverse=True) if (path / "state.json").exists()]


def jobs_of_kind(jobs: Path, kind: Kind) -> list[JobFolder]:
    """Return the jobs of a kind, newest first, without reading the whole of what each was asked."""
    return [job for job in list_jobs(jobs) if _first_line(job) in (f"kind: {kind}", "") and _is(job, kind)]


def _first_line(job: JobFolder) -> str:
    """`kind: …` as `create_job` writes it; empty if somebody wrote it otherwise."""
    try:
        with (job.path / "job.yaml").open(encoding="utf-8") as file:
            line = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return line if line.startswith("kind: ") else ""


def _is(job: JobFolder, kind: Kind) -> bool:
    try:
        return job.request.kind == kind
    except InputError:
        return False  # a folder that is not ours; the list of jobs shows it as such


def find_job(jobs: Path, wanted: str, kind: Kind | None = None) -> JobFolder:
    """Find a job by its id, its folder's path, or its name (the newest of that name).

    Raises:
        InputError: there is none; the nearest name is given.
    """
    direct = Path(wanted)
    if direct.is_absolute() and (direct / "state.json").exists():
        return JobFolder(direct)
    found = list_jobs(jobs)
    # Reading a job.yaml takes milliseconds, and there may be thousands: first those whose folder has the name in it.
    slug = _slug(wanted)
    found.sort(key=lambda job: (job.id != wanted, slug not in job.id))  # the newest stay before the older ones
    for job in found:
        if wanted in (job.id, job.request.name) and (kind is None or job.request.kind == kind):
            return job
    found = [job for job in found if kind is None or job.request.kind == kind]
    names = sorted({job.request.name for job in found} | {job.id for job in found})
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    what = "run" if kind == "train" else "job"
    fix = f"Did you mean '{near[0]}'?" if near else f"'studio jobs list' shows the {what}s"
    raise InputError(f"there is no {what} '{wanted}'", fix=fix)
