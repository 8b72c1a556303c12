"""launch.json of a job's folder: how far a run on another machine is known here, to be gone on with after a kill."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.folder import JobFolder

FILE = "launch.json"


@dataclass(frozen=True)
class Record:
    """What is known.

    Attributes:
        begun: whether the run was accepted there.
        folder: of the job there.
        python: that works on it.
        paths: path here by path there.
        events_at, log_at: bytes of events and log there that have come back.
        ended: attempt there whose end was told here; 0 for none.
    """

    begun: bool = False
    folder: str = ""
    python: str = ""
    paths: dict[str, str] = field(default_factory=dict)
    events_at: int = 0
    log_at: int = 0
    ended: int = 0


def read_record(job: JobFolder) -> Record:
    """Read a job's record; an empty one where there is none yet, or it is damaged."""
    try:
        raw = read_json(job.path / FILE)
    except ValueError:
        raw = None
    empty = Record()
    known = {one.name for one in fields(Record)}
    given = raw if isinstance(raw, dict) else {}
    return Record(
        **{key: value for key, value in given.items() if key in known and type(value) is type(getattr(empty, key))}
    )


def update_record(job: JobFolder, /, **changes: Any) -> Record:
    """Change fields of a job's record, and return it."""
    made = replace(read_record(job), **changes)
    write_json(job.path / FILE, asdict(made))
    return made
