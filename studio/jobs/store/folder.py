"""A job's folder: names, paths, and what was asked for.

The folder is the database: nothing about a job is kept anywhere else, so that it can be
copied to another machine and read there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from studio.errors import InputError
from studio.foreign import RUN, parse_yaml
from studio.jobs.store.files import read_json, write_atomic
from studio.jobs.store.labels import Labels, read_labels
from studio.jobs.store.request import (
    ELSEWHERE_KINDS,
    Branch,
    JobRequest,
    Kind,
    parse_heading,
    parse_request,
    write_request,
)
from studio.jobs.store.state import JobState, read_state, write_state
from studio.methods import METHODS
from studio.reach import open_in, roots_of_page


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
            return parse_request(parse_yaml(self._asked()))
        except (OSError, InputError, KeyError, TypeError, ValueError, YAMLError) as error:
            raise InputError("job.yaml cannot be read, so this is not a job folder", where=str(self.path)) from error

    @cached_property
    def heading(self) -> tuple[Kind, str]:
        """Kind and name, without reading the config: of thousands of jobs that would take a minute.

        Raises:
            InputError: as `request`.
        """
        try:
            return parse_heading(parse_yaml(self._asked().partition("\nconfig:")[0]))
        except (OSError, InputError, KeyError, TypeError, ValueError, YAMLError):  # another order, or not ours
            return self.request.kind, self.request.name

    @cached_property
    def machine(self) -> str:
        """The other machine that works on it, as lists name it, without reading the config; "" for this one."""
        try:
            raw = parse_yaml(self._asked().partition("\nconfig:")[0])
            place = raw.get("place") if isinstance(raw, dict) else None
            return str(place.get("machine") or "") if isinstance(place, dict) else ""
        except (OSError, InputError, ValueError, YAMLError):
            return ""

    def _asked(self) -> str:
        with open_in(self.path, "job.yaml") as file:
            return file.read(RUN.bytes + 1).decode("utf-8")

    def labels(self) -> Labels:
        """Name, tags, note and archive mark that a person gave it later."""
        return read_labels(self.path)

    @property
    def name(self) -> str:
        """The name that is shown: the one it was given later, else that of job.yaml.

        Raises:
            InputError: there is no later one and job.yaml cannot be read.
        """
        return self.labels().name or self.heading[1]

    @property
    def shown(self) -> str:
        """The name that is shown, or the id where none can be read."""
        try:
            return self.name
        except InputError:
            return self.id

    @property
    def training(self) -> dict[str, Any]:
        """Options of the training behind the job's model: its own; of a merge, those of its first parent that has some.

        Empty for a merge of models that come from elsewhere, and for a model that was trained elsewhere.
        """
        config = self.request.config
        if self.request.kind in ELSEWHERE_KINDS:
            return {}
        like = config.get("like") if self.request.kind == "merge" else config
        return like if isinstance(like, dict) else {}

    @property
    def scores(self) -> bool:
        """Whether the job trains a model that scores answers instead of writing them."""
        method = METHODS.get(str((self.training.get("method") or {}).get("name")))
        return method is not None and method.result == "scorer"

    def state(self) -> JobState:
        """Read where the job is now."""
        return read_state(self.state_path)

    def asked_stop(self) -> dict[str, Any] | None:
        """What a stop asks for; None where nobody asked. A file that cannot be read asks for no more than that."""
        try:
            found = read_json(self.stop_path)
        except ValueError:
            return {}
        if isinstance(found, dict):
            return found
        return {} if self.stop_path.exists() else None

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


def create_job(
    jobs: Path,
    kind: Kind,
    name: str,
    config: dict[str, Any],
    *,
    branch: Branch | None = None,
    group: str = "",
    place: dict[str, Any] | None = None,
    fill: Callable[[JobFolder], None] = lambda job: None,
) -> JobFolder:
    """Make a job's folder in state `queued`.

    Args:
        jobs: folder of all jobs.
        kind: what kind of work.
        name: the person's name for it; letters, digits, dot, dash and underscore are kept.
        config: full config of that kind.
        branch: the checkpoint that it begins with, if any.
        group: what the runs of one sweep have in common.
        place: how it runs on another machine; None for this one.
        fill: puts what the job needs into its folder, before anybody can see or start it.

    Raises:
        InputError: the name has nothing to make a folder name of.
        OSError: the folder cannot be written; nothing is left of it.
    """
    slug = folder_name(name)
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
    try:
        write_request(path, JobRequest(kind, name, config, branch, group, roots_of_page(), place))
        write_atomic(job.events_path, "")
        fill(job)
        write_state(job.state_path, JobState(status="queued"))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return job


def is_made(folder: str | Path) -> bool:
    """Whether a job's folder has a state.json, or may not be looked into: then it is a job that is shown as lost."""
    # Not `Path.exists`: that raises for what may not be looked into.
    here = os.access(f"{folder}/state.json", os.F_OK)
    return here or (Path(folder).is_dir() and not os.access(folder, os.X_OK))


def folder_name(name: str) -> str:
    """Return what a job's folder is called after its time: letters, digits, dot, dash and underscore of its name.

    A name in another script gets a folder of its own all the same; "" for what holds no letter and no digit.
    """
    slug = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:60]
    if slug or not any(letter.isalnum() for letter in name):
        return slug
    return f"run-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def taken_names(jobs: Path) -> set[str]:
    """Return the names of the jobs as their folders have them (time and name), without reading any job.yaml."""
    return {path.name[16:] for path in jobs.iterdir()} if jobs.is_dir() else set()


def free_name(jobs: Path, wanted: str) -> str:
    """Return a name that no job has: the wanted one, or that with the next free number."""
    plain = folder_name(wanted)[:52] or "run"
    taken = taken_names(jobs)
    number, name = 2, plain
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def require_free(jobs: Path, name: str, where: str = "--name") -> None:
    """Refuse a name that a job has already.

    Args:
        jobs, name, where: folder of all jobs, the shown name, and the field for the error.

    Raises:
        InputError: it is taken; a free one is given.
    """
    if folder_name(name) in taken_names(jobs):
        raise InputError(
            f"a run '{name}' already exists", where=where, fix=f"Use '{free_name(jobs, name)}', or omit the name"
        )
