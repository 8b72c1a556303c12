"""What a list of jobs shows of each: kept up to date by reading only what is new.

A `Summaries` object remembers byte offsets. It belongs to a reader (the page, the command line); losing it
costs one reading of the logs and nothing else.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from studio.jobs.store.events import read_events
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.state import JobState
from studio.jobs.views.progress import Progress

# Of so many jobs the place in the log is remembered.
KEPT = 500


@dataclass
class JobSummary:
    """The latest of everything that a job has reported.

    Attributes:
        phase: name of the phase it is in.
        done, total, unit: how far that phase is; total None where the end is not known.
        step, total_steps: updates of a training run.
        values: the newest value of each metric.
        best: the lowest validation loss and its step; that before the first step does not count.
        validations: all that count, (step, loss).
        results: named results, such as an evaluation's.
        peak_memory_gb: highest resident memory seen (1e9 bytes).
        progress: how far the whole job is, and when it ends.
        behind: True while a part of a long log was not read yet.
    """

    phase: str = ""
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    tokens: int = 0
    elapsed: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    validations: list[tuple[int, float]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    notices: list[dict[str, Any]] = field(default_factory=list)
    peak_memory_gb: float = 0.0
    progress: Progress = field(default_factory=Progress)
    behind: bool = False

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event, as `read_events` gives it."""
        self.peak_memory_gb = max(self.peak_memory_gb, event.get("memory_gb") or 0.0)
        self.progress.add(event)
        match event["kind"]:
            case "phase":
                self.phase, self.unit = event["phase"], event.get("unit", "")
                self.done, self.total = event.get("done") or 0.0, event.get("total")
            case "metric":
                self._add_metric(event)
            case "resume":
                self._go_back(event["step"])
            case "result":
                self.results[event["name"]] = event["values"]
            case "notice" if event["seq"] >= 0 or event not in self.notices[-1:]:  # one word on unreadable lines
                self.notices.append(event)

    def _add_metric(self, event: dict[str, Any]) -> None:
        values = event.get("values", {})
        self.values.update(values)
        self.step = max(self.step, event.get("step", 0))
        self.total_steps = event.get("total_steps") or self.total_steps
        self.epoch = event.get("epoch", self.epoch)
        self.tokens = event.get("tokens", self.tokens)
        self.elapsed = event.get("elapsed", self.elapsed)
        loss, step = values.get("eval_loss"), event["step"]
        if step > 0 and isinstance(loss, int | float) and math.isfinite(loss):
            self.validations.append((step, loss))
            if self.best is None or loss < self.best[0]:
                self.best = (loss, step)

    def _go_back(self, step: int) -> None:
        """The training goes on from that step: what came after it is done once more."""
        self.step, self.values = step, {}
        self.validations = [one for one in self.validations if one[0] <= step]
        self.best = min(((loss, at) for at, loss in self.validations), default=None)


class Summaries:
    """Summaries of many jobs, each read on from where it was left. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[int, JobSummary]] = OrderedDict()  # the last used one last

    def of(self, job: JobFolder, seconds: float | None = None) -> JobSummary:
        """Return the summary of a job, up to date; with `seconds` after about that time, maybe `behind`."""
        key = str(job.path)
        end = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            offset, summary = self._known.get(key, (0, JobSummary()))
            while True:
                events, following = read_events(job.events_path, offset)
                if following < offset:  # the file was replaced: begin again
                    summary = JobSummary()
                for event in events:
                    summary.add(event)
                summary.behind = following != offset
                offset = following
                if not summary.behind or (end is not None and time.monotonic() > end):
                    break
            self._known[key] = (offset, summary)
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            return summary


def status_word(state: JobState, summary: JobSummary) -> str:
    """The state in a few words, for a list: 'step 52 of 126', 'waiting', 'done', 'failed: …'."""
    if state.status == "queued":
        return "waiting"
    if state.status == "completed":
        return "done"
    if state.final:
        return f"{state.status}: {state.reason}" if state.reason else state.status
    if summary.total_steps:
        return f"step {summary.step} of {summary.total_steps}"
    return summary.phase or state.status


def tracked(summary: JobSummary) -> list[tuple[str, str]]:
    """Where a run is seen in its trackers: each one's title, and the address or the command that shows it."""
    told = summary.results.get("trackers", {})
    found = [one for one in told.values() if isinstance(one, dict)]
    places = [(one.get("title"), one.get("url") or one.get("command")) for one in found]
    return [(title, place) for title, place in places if isinstance(title, str) and isinstance(place, str)]
