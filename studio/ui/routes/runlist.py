"""What the page is told of each job: one plain row, made from the folder.

Polled once a second by every open page, so it reads only what is new: a request is parsed again only when it was
changed, summaries read on from where they were, the row of a job that is over is kept while its folder is untouched.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from studio.config.remote import PREFIX
from studio.errors import StudioError
from studio.jobs import FINAL, JobFolder, JobState, JobSummary, Summaries
from studio.jobs.actions.queue import place_key
from studio.jobs.run.devices import NOWHERE, wanted_device
from studio.jobs.store.labels import NAME as LABELS
from studio.jobs.store.request import ANSWERING_KINDS, ELSEWHERE_KINDS, JobRequest, Kind
from studio.jobs.views.index import JobIndex
from studio.jobs.views.summary import status_word
from studio.merge import methods as merges
from studio.methods import METHODS
from studio.settings import Settings
from studio.tunings import title_of
from studio.ui.routes.answers import Stamp, file_stamp
from studio.ui.routes.rowchanges import Changes, KeptRows, Row
from studio.ui.text import KINDS, place_words

# So long one answer may read jobs that were never read before; the rest comes with the next answers.
LOOK_SECONDS = 0.25
# And so long on one run's log: what is shown first must not wait for the end of a long one.
LOG_SECONDS = 0.05


_MERGE_METHOD = re.compile(r"^merge_method: *['\"]?(\w+)", re.MULTILINE)


class RunBook:
    """Rows of all jobs of a home. Safe to share between threads; losing it costs one reading of the logs."""

    def __init__(self, settings: Settings, summaries: Summaries) -> None:
        self._settings, self._summaries = settings, summaries
        self._lock = threading.Lock()
        self._index = JobIndex(settings.jobs)
        self._requests: dict[str, tuple[Stamp, JobRequest]] = {}
        self._rows: dict[str, Row] = {}
        self._made: dict[str, tuple[Stamp, Row]] = {}  # of jobs that do not rest: made from which files
        self._changes = Changes()
        self._kept = KeptRows(settings.home / "cache" / "runs.json")

    def rows(self) -> list[Row]:
        """Rows of all jobs, newest first; queued ones carry their place in the line."""
        with self._lock:
            self._look(None)
            return [dict(self._rows[job_id]) for job_id in sorted(self._rows, reverse=True)]

    def changes(self, after: str, newest: int | None = None) -> dict[str, Any]:
        """What changed since the answer whose `version` is `after` ("" for everything).

        Args:
            after: the version that the reader has.
            newest: of everything only so many; the next answer, for the version that comes with them, has all.

        Returns:
            `version`; `rows` that are new or changed; `gone`, the ids of those that are not there any more; `all`
            when the rows are all there are, so that what the reader had is forgotten; `reading`, how many jobs were
            not read yet because there are many: the next answers bring them.
        """
        with self._lock:
            reading = self._look(LOOK_SECONDS)
            found = {**self._changes.since(after, self._rows), "reading": reading}
            if newest is not None and found["all"] and len(self._rows) > newest:
                kept = [self._rows[job_id] for job_id in sorted(self._rows, reverse=True)[:newest]]
                found |= {"version": "", "rows": kept, "reading": reading + len(self._rows) - newest}
            return found

    def find(self, job_id: str) -> JobFolder | None:
        """Look a job up among those that exist; the id is compared, never made part of a path."""
        with self._lock:
            return self._index.find(job_id)

    def works(self, kind: Kind) -> list[tuple[JobFolder, str]]:
        """Return the evaluations or exports with the run that each was asked for, newest first.

        Args:
            kind: evaluate or export. Jobs that were never read are read first, all of them.
        """
        while True:  # in parts, so that who polls the list meanwhile is answered
            with self._lock:
                if self._look(LOOK_SECONDS) == 0:
                    found = sorted((row["id"] for row in self._rows.values() if row["kind"] == kind), reverse=True)
                    return [(self._index.jobs[job_id], str(self._rows[job_id]["run"] or "")) for job_id in found]

    def row(self, job: JobFolder) -> Row:
        """Row of one job."""
        with self._lock:
            self._look(LOOK_SECONDS)
            return dict(self._rows.get(job.id) or self._row(job))

    def request(self, job: JobFolder) -> JobRequest:
        """What was asked; a job.yaml that cannot be read gives an empty one under the folder's name."""
        written = file_stamp(job.path / "job.yaml")  # that of a waiting job may be changed
        found = self._requests.get(job.id)
        if found is None or found[0] != written:
            try:
                found = (written, JobFolder(job.path).request)
            except StudioError:
                found = (written, JobRequest(kind="train", name=job.id, config={}))
            self._requests[job.id] = found
        return found[1]

    def summary(self, job: JobFolder) -> JobSummary:
        """The latest of what a job reported, as far as it could be read in a moment: a long log takes several."""
        return self._summaries.of(job, LOG_SECONDS)

    def _look(self, seconds: float | None) -> int:
        """Make the rows that may have changed; after `seconds` leave new ones for the next time and return how many."""
        jobs, gone = self._index.look()
        for job_id in gone:
            for known in (self._rows, self._made, self._requests):
                known.pop(job_id, None)
        self._kept.read()  # of ten thousand jobs this takes longer than is given for making rows
        end = None if seconds is None else time.monotonic() + seconds
        fresh: dict[str, Row] = {}
        left = 0
        for job in jobs:
            if job.id not in self._rows and end is not None and time.monotonic() > end:
                left += 1
            else:
                fresh[job.id] = self._row(job)
        waiting = [row for row in fresh.values() if row["status"] == "queued"]
        if waiting:
            key = place_key(self._settings.home)
            waiting.sort(key=lambda row: key(row["id"], row["created"]))
        for place, row in enumerate(waiting, start=1):
            row["place"], row["word"] = place, place_words(place, row["wants"])
        changed = [job_id for job_id, row in fresh.items() if self._rows.get(job_id) != row]
        self._rows |= fresh
        self._changes.note(changed, gone)
        if not left:
            self._kept.save(self._rows, self._index.resting)
        return left

    def _row(self, job: JobFolder) -> Row:
        """Row of a job that does not rest, without its place in the line."""
        folder = self._index.stamp(job.id)
        kept = self._kept.row(job.id, folder) if job.id not in self._rows else None
        if kept is not None:
            self._index.rest(job.id)
            return kept
        stamp = (folder, *file_stamp(job.state_path, job.events_path, job.path / LABELS))
        made = self._made.get(job.id)
        if made is not None and made[0] == stamp:
            row = made[1]
        else:
            summary, request = self.summary(job), self.request(job)
            row = make_row(job.id, request, job.state(), summary) | label_row(job, request.name)
            if summary.behind:  # its log goes on being read next time
                return row
            self._made[job.id] = (stamp, row)
        if row["status"] in FINAL and self._index.rest(job.id):
            del self._made[job.id]
            self._requests.pop(job.id, None)
        return dict(row)


def make_row(job_id: str, request: JobRequest, state: JobState, summary: JobSummary) -> Row:
    """Make the row of one job. Times are Unix seconds, `left` seconds, memory GB (1e9 bytes).

    Args:
        job_id: also its folder's name.
        request: what was asked for; never changes.
        state: newest status, with its times.
        summary: of the events so far.
    """
    best, best_step = summary.best if summary.best is not None else (None, None)
    return {
        "id": job_id,
        "kind": request.kind,
        "name": request.name,
        "group": request.group,
        "line": method_line(request),
        "run": request.config.get("run") if request.kind not in ANSWERING_KINDS else None,
        "status": state.status,
        "word": status_word(state, summary),
        "reason": state.reason,
        "fix": state.fix,
        "place": None,
        "wants": NOWHERE if request.elsewhere else wanted_device(request.kind, request.config),
        "device": state.device,
        "machine": request.machine,
        "best": best,
        "best_step": best_step,
        "step": summary.step,
        "total_steps": summary.total_steps,
        "phase": summary.phase,
        "done": summary.done,
        "total": summary.total,
        "unit": summary.unit,
        "share": round(summary.progress.share, 4),
        "left": summary.progress.left,
        "created": state.created,
        "started": state.started,
        "finished": state.finished,
    }


def label_row(job: JobFolder, asked: str) -> Row:
    """What a person gave a job later: shown name, tags, note, archive mark; `asked_name` is that of job.yaml."""
    labels = job.labels()
    given = {"tags": list(labels.tags), "note": labels.note, "archived": labels.archived}
    return {"name": labels.name or asked, "asked_name": asked, **given}


def method_line(request: JobRequest) -> str:
    """Tuning and method of a training run ('LoRA · SFT'), or the kind of another job and what it works on."""
    if request.kind == "merge":
        named = _MERGE_METHOD.search(str(request.config.get("recipe")))
        chosen = merges.METHODS.get(named[1]) if named else None
        return " · ".join(filter(None, [KINDS["merge"], chosen.title if chosen else ""]))
    if request.kind in ELSEWHERE_KINDS:
        model = str(request.config.get("model") or "").removeprefix(PREFIX)
        return " · ".join(filter(None, [KINDS[request.kind], model]))
    if request.kind != "train":
        made_of = PurePath(str(request.config.get("run") or "")).name  # of a model it is the folder
        run = re.sub(r"^\d{8}-\d{6}-", "", made_of)  # the time is said by the row itself
        return " · ".join(filter(None, [KINDS[request.kind], run]))
    method, tuning = (_name(request.config.get(section)) for section in ("method", "tuning"))
    titled = METHODS[method].title if method in METHODS else method
    return " · ".join(filter(None, [title_of(tuning), titled]))


def state_dict(job: JobFolder, state: JobState) -> dict[str, Any]:
    """State for JSON, with whether a stop was asked for and whether it was to be at once."""
    asked = job.asked_stop()
    now = asked is not None and bool(asked.get("now"))
    return {**asdict(state), "final": state.final, "stop_asked": asked is not None, "stop_now": now}


def summary_dict(summary: JobSummary) -> dict[str, Any]:
    """Summary for JSON, without what grows with the run: that comes as events."""
    values = dict(vars(summary))
    del values["notices"], values["validations"], values["progress"]
    return values | {"share": summary.progress.share, "left": summary.progress.left}


def _name(section: Any) -> str:
    return str(section.get("name") or "") if isinstance(section, dict) else ""
