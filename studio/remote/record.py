"""What is known of things at the service: the home's journal of files and jobs, and the record of each job's folder.

Both are written before something is changed there (what is about to be sent) and after it (what it is called), so that
whoever goes on after a kill knows what may have arrived. Neither holds a key.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.folder import JobFolder
from studio.locks import locked
from studio.private import make_home
from studio.settings import Settings

FILE = "openai.json"
#: States of a job at the service that nothing changes any more.
OVER = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Record:
    """openai.json of a job's folder.

    Attributes:
        base_url: where the job runs.
        training_file, validation_file: ids of what was sent; "" before, or for none.
        intent: Unix seconds at which the start was first tried; None before.
        job: id at the service.
        status: as the service calls it.
        base: name of the model that is tuned.
        tuned: name of the tuned model.
        checkpoints: name and step of each model on the way, with its numbers.
        trained_tokens: that are billed.
        hyperparameters: as the service chose them.
    """

    base_url: str = ""
    training_file: str = ""
    validation_file: str = ""
    intent: float | None = None
    job: str = ""
    status: str = ""
    base: str = ""
    tuned: str = ""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    trained_tokens: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the job at the service has ended."""
        return self.status in OVER

    def models(self) -> dict[str, str]:
        """Names at the service by what they are called here: base, tuned, step-N."""
        found = {"base": self.base} if self.base else {}
        for one in self.checkpoints:
            found[f"step-{one['step']}"] = str(one["model"])
        return found | ({"tuned": self.tuned} if self.tuned else {})


def read_record(job: JobFolder) -> Record:
    """Read a job's record; an empty one where there is none yet, or it is damaged."""
    try:
        raw = read_json(job.path / FILE)
    except ValueError:
        raw = None
    known = {one.name for one in fields(Record)}
    given = {key: value for key, value in raw.items() if key in known} if isinstance(raw, dict) else {}
    empty = Record()
    # What another program wrote there is as good as nothing.
    sound = {
        key: value for key, value in given.items()
        if isinstance(value, type(getattr(empty, key))) or (getattr(empty, key) is None and _number(value))
    }  # fmt: skip
    return Record(**sound)


def update_record(job: JobFolder, /, **changes: Any) -> Record:
    """Change fields of a job's record, and return it."""
    made = replace(read_record(job), **changes)
    write_json(job.path / FILE, asdict(made))
    return made


def _number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


class Journal:
    """What this home has sent, whatever has become of the jobs' folders.

    Args:
        settings: of the home.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "openai"
        make_home(settings.home)
        self.folder.mkdir(exist_ok=True)

    def file(self, base_url: str, sha256: str) -> dict[str, Any]:
        """What is known of a file: `id` of it at the service, `intent` when its upload was first tried.

        Args:
            base_url: of the service.
            sha256: of the bytes.
        """
        found = self._read().get("files", {}).get(f"{base_url} {sha256}")
        return found if isinstance(found, dict) else {}

    def note_file(self, base_url: str, sha256: str, **values: Any) -> None:
        """Note `id` or `intent` of a file; None forgets one.

        Args:
            base_url, sha256: as `file`.
            values: to note.
        """
        self._note("files", f"{base_url} {sha256}", values)

    def job(self, key: str) -> dict[str, Any]:
        """The job that was started with that key: `job` at the service, `folder` here, `status` when last seen."""
        found = self._read().get("jobs", {}).get(key)
        return found if isinstance(found, dict) else {}

    def note_job(self, key: str, **values: Any) -> None:
        """Note what became of the job of a key."""
        self._note("jobs", key, values)

    def lock_path(self, sha256: str) -> Path:
        """File that is locked while a file is uploaded."""
        return self.folder / f"{sha256}.lock"

    def _note(self, section: str, key: str, values: dict[str, Any]) -> None:
        with locked(self.folder / "journal.lock", "what was sent cannot be recorded"):
            whole = self._read()
            part = whole.setdefault(section, {})
            kept = {**(part.get(key) or {}), **values, "time": time.time()}
            part[key] = {name: value for name, value in kept.items() if value is not None}
            write_json(self.folder / "journal.json", whole)

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self.folder / "journal.json")
        except ValueError:  # damaged: the service is asked what it has
            found = None
        return found if isinstance(found, dict) else {}
