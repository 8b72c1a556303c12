"""What the page is told of each job: one plain row, made from the folder.

Polled once a second by every open page, so it reads only what is new: a request is parsed again only when it was
changed, summaries read on from where they were, and a finished job's row is kept while its files are untouched.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.config.tuning import TITLES
from studio.errors import StudioError
from studio.jobs import JobFolder, JobState, JobSummary, Summaries, list_jobs
from studio.jobs.devices import wanted_device
from studio.jobs.files import read_json
from studio.jobs.folder import JobRequest
from studio.jobs.queue import place_key
from studio.jobs.summary import status_word
from studio.settings import Settings
from studio.train.methods import METHODS
from studio.ui.text import KINDS, place_words

Row = dict[str, Any]


class RunBook:
    """Rows of all jobs of a home. Safe to share between threads; losing it costs one reading of the logs."""

    def __init__(self, settings: Settings, summaries: Summaries) -> None:
        self._settings, self._summaries = settings, summaries
        self._lock = threading.Lock()
        self._requests: dict[str, tuple[int, JobRequest]] = {}
        self._finished: dict[str, tuple[tuple[int, int], Row]] = {}

    def rows(self) -> list[Row]:
        """Rows of all jobs, newest first; queued ones carry their place in the line."""
        jobs = list_jobs(self._settings.jobs)
        with self._lock:
            rows = [self._row(job) for job in jobs]
        queued = [row for row in rows if row["status"] == "queued"]
        if queued:
            key = place_key(self._settings.home)
            queued.sort(key=lambda row: key(row["id"], row["created"]))
        for place, row in enumerate(queued, start=1):
            row["place"], row["word"] = place, place_words(place, row["wants"])
        return rows

    def find(self, job_id: str) -> JobFolder | None:
        """Look a job up among those that exist; the id is compared, never made part of a path."""
        return next((job for job in list_jobs(self._settings.jobs) if job.id == job_id), None)

    def row(self, job: JobFolder) -> Row:
        """Row of one job."""
        with self._lock:
            return self._row(job)

    def request(self, job: JobFolder) -> JobRequest:
        """What was asked; a job.yaml that cannot be read gives an empty one under the folder's name."""
        written = _changed(job.path / "job.yaml")  # a waiting job may get other settings
        kept = self._requests.get(job.id)
        if kept is None or kept[0] != written:
            try:
                kept = (written, job.request)
            except StudioError:
                kept = (written, JobRequest(kind="train", name=job.id, config={}))
            self._requests[job.id] = kept
        return kept[1]

    def summary(self, job: JobFolder) -> JobSummary:
        """The latest of what a job reported; an event log that is not ours says so as a notice."""
        try:
            return self._summaries.of(job)
        except (KeyError, TypeError, ValueError) as error:
            text = f"the event log cannot be understood ({type(error).__name__}: {error})"
            return JobSummary(notices=[{"level": "warning", "text": text, "fix": "Another program wrote it?"}])

    def _row(self, job: JobFolder) -> Row:
        stamp = (_changed(job.state_path), _changed(job.events_path))
        kept = self._finished.get(job.id)
        if kept is not None and kept[0] == stamp:
            return dict(kept[1])
        state = job.state()
        row = make_row(job.id, self.request(job), state, self.summary(job))
        if state.final:
            self._finished[job.id] = (stamp, row)
        return dict(row)


def make_row(job_id: str, request: JobRequest, state: JobState, summary: JobSummary) -> Row:
    """Make the row of one job. Times are Unix seconds, `eta` and `elapsed` seconds, memory GB (1e9 bytes)."""
    best, best_step = summary.best if summary.best is not None else (None, None)
    return {
        "id": job_id,
        "kind": request.kind,
        "name": request.name,
        "group": request.group,
        "line": method_line(request),
        "run": request.config.get("run") if request.kind != "train" else None,
        "status": state.status,
        "word": status_word(state, summary),
        "reason": state.reason,
        "fix": state.fix,
        "place": None,
        "wants": wanted_device(request.kind, request.config),
        "device": state.device,
        "best": best,
        "best_step": best_step,
        "step": summary.step,
        "total_steps": summary.total_steps,
        "phase": summary.phase,
        "done": summary.done,
        "total": summary.total,
        "unit": summary.unit,
        "eta": summary.eta,
        "created": state.created,
        "started": state.started,
        "finished": state.finished,
    }


def method_line(request: JobRequest) -> str:
    """Tuning and method of a training run ('LoRA · SFT'), or the kind of another job and what it works on."""
    if request.kind != "train":
        run = re.sub(r"^\d{8}-\d{6}-", "", str(request.config.get("run") or ""))  # the time is said by the row itself
        return " · ".join(filter(None, [KINDS[request.kind], run]))
    method, tuning = (_name(request.config.get(section)) for section in ("method", "tuning"))
    titled = METHODS[method].title if method in METHODS else method
    return " · ".join(filter(None, [TITLES.get(tuning, tuning), titled]))


def state_dict(job: JobFolder, state: JobState) -> dict[str, Any]:
    """State for JSON, with whether a stop was asked for and whether it was to be at once."""
    asked = read_json(job.stop_path)
    now = isinstance(asked, dict) and bool(asked.get("now"))
    return {**asdict(state), "final": state.final, "stop_asked": asked is not None, "stop_now": now}


def summary_dict(summary: JobSummary) -> dict[str, Any]:
    """Summary for JSON, without its notices: they come as events."""
    values = asdict(summary)
    del values["notices"]
    return values


def _name(section: Any) -> str:
    return str(section.get("name") or "") if isinstance(section, dict) else ""


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime_ns)
    except FileNotFoundError:
        return 0
