"""Routes that read jobs: the list, one job, its events and log from a byte offset, and its files.

Nothing here trusts a name from the address: jobs and files are looked up among those that exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Query

from studio.errors import InputError
from studio.jobs import JobFolder
from studio.jobs.store.checkpoints import last_whole, whole_steps
from studio.jobs.store.events import read_events, read_lines
from studio.jobs.store.files import size_of
from studio.jobs.store.logs import lines_around
from studio.jobs.store.request import MODEL_KINDS, JobRequest
from studio.jobs.views.compare import metrics_of
from studio.jobs.views.differences import settings_of
from studio.jobs.views.expected import next_steps
from studio.reach import open_in
from studio.remote.record import read_record
from studio.train.ranks.ends import log_of, ranks_with_logs
from studio.ui.components.selected import has_model, is_elsewhere
from studio.ui.routes.answers import HeldFile, Json, KeptAnswers, file_stamp
from studio.ui.routes.runlist import RunBook, state_dict, summary_dict

LOG_BYTES = 256 * 1024
LAST_RANK = 9999

# Every run has these in a chart or a tile already.
_COMMON = ("eval_loss", "mean_token_accuracy")
# What a job at a service reports beside its loss.
_THERE = {
    "mean_token_accuracy": "Token accuracy", "eval_loss_of_batch": "Validation loss of a batch", "reward": "Reward",
}  # fmt: skip


def make_router(book: RunBook, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes over these rows; `job_of` finds a job or answers 404."""
    router = APIRouter(prefix="/api/jobs")
    kept = KeptAnswers()

    @router.get("")
    def jobs(after: str | None = None, newest: int | None = Query(None, ge=1)) -> Json:
        # Scripts ask without `after` and get all rows; the page gets what changed since its last answer.
        return Json(book.rows() if after is None else book.changes(after, newest))

    @router.get("/{job_id}")
    def job(job_id: str) -> Json:
        found = job_of(job_id)
        request = book.request(found)
        return Json(
            book.row(found)
            | {
                "state": state_dict(found, found.state()),
                "summary": summary_dict(book.summary(found)),
                "config": request.config,
                "environment": found.environment(),
                "ranks": ranks_with_logs(found.path),
                "metrics": own_metrics(request.config),
                "next": after_training(found, request),
                "resumable": resumable(found),
                "elsewhere": there(found) if is_elsewhere(found) else None,
                "checkpoints": whole_steps(found.checkpoints),
                "branch": asdict(request.branch) if request.branch else None,
                "files": [
                    {"name": name, "bytes": path.stat().st_size, "url": f"/api/jobs/{found.id}/files/{name}"}
                    for name, path in downloads(found).items()
                ],
            }
        )

    @router.get("/{job_id}/settings")
    def settings(job_id: str) -> Json:
        found = job_of(job_id)
        if found.request.kind != "train":
            raise HTTPException(404, f"'{found.name}' is not a training run")
        rows, note = settings_of(found)
        return Json({"settings": [asdict(row) for row in rows], "note": note})

    @router.get("/{job_id}/events")
    def events(job_id: str, after: int = Query(0, ge=0)) -> Json:
        found = job_of(job_id)
        stamp = file_stamp(found.state_path, found.stop_path, found.events_path)
        answer = kept.get(("events", job_id, after), stamp, lambda: _events(found, after))
        # The clock for times in the events; the rest is the same for all who are as far.
        return Json(b'{"now": %.3f, ' % time.time() + answer[1:])

    def _events(found: JobFolder, after: int) -> tuple[bytes, bool]:
        state = found.state()  # before the events: a final state means that they are all there
        page, following = read_events(found.events_path, after)
        summary = book.summary(found)
        answer = {
            "next": following,
            "more": following < size_of(found.events_path) and following != after,
            "events": page,
            "state": state_dict(found, state),
            "summary": summary_dict(summary),
        }
        return bytes(Json(answer).body), not summary.behind

    @router.get("/{job_id}/log")
    def log(job_id: str, after: int = Query(0, ge=0), rank: int = Query(0, ge=0, le=LAST_RANK)) -> Json:
        found = job_of(job_id)
        if rank and rank not in ranks_with_logs(found.path):
            raise HTTPException(404, f"rank {rank} of this job has no log")
        path = log_of(found.path, rank)
        return Json(kept.get(("log", job_id, after, rank), file_stamp(path), lambda: _log(path, after)))

    @router.get("/{job_id}/log/around")
    def around(job_id: str, line: int = Query(ge=1)) -> Json:
        first, lines = lines_around(job_of(job_id).log_path, line)
        return Json({"first": first, "line": line, "lines": lines})

    @router.get("/{job_id}/files/{name:path}")
    def download(job_id: str, name: str) -> HeldFile:
        found = job_of(job_id)
        path = downloads(found).get(name)
        if path is None:
            raise HTTPException(404, "there is no such file")
        try:
            inner = path.resolve().relative_to(found.path.resolve())
            return HeldFile(open_in(found.path, *inner.parts), path.name)
        except (OSError, ValueError, InputError) as error:  # gone since it was looked up, or a link that leads out
            raise HTTPException(404, "this file no longer exists") from error

    return router


def own_metrics(config: dict[str, Any]) -> list[dict[str, str]]:
    """Name and title of what a run's method reports beside the loss, for its charts."""
    if config.get("model") and isinstance(config["model"], str):  # a job at a service
        return [{"name": name, "title": title} for name, title in _THERE.items()]
    return [{"name": one.name, "title": one.title} for one in metrics_of(config) if one.name not in _COMMON]


def there(job: JobFolder) -> dict[str, Any]:
    """What is known of a job at a service: its id and state there, the tuned model, and whether it may go on there."""
    record = read_record(job)
    loose = bool(record.job) and not record.over and job.state().final
    return {"job": record.job, "status": record.status, "tuned": record.tuned, "loose": loose}


def after_training(job: JobFolder, request: JobRequest) -> dict[str, dict[str, Any]]:
    """What can be done with a finished training, and what each will take; empty for other jobs."""
    ready = request.kind in MODEL_KINDS and bool(request.config) and has_model(job)
    return next_steps(job.environment()) if ready else {}


def resumable(job: JobFolder) -> int | None:
    """Step from which a training that ended early can go on; None if it cannot."""
    state = job.state()
    if not state.final or state.status == "completed":
        return None
    checkpoint = last_whole(job.checkpoints)
    if checkpoint is None:  # another machine may have one that has not come back
        return None if job.request.place is None else 0
    return checkpoint.step


def downloads(job: JobFolder) -> dict[str, Path]:
    """Files of a job that may be downloaded, by name: its log, exports and reports.

    A checkpoint's files are named with their folder. A link that leads out of the job's folder is left out.
    """
    found: dict[str, Path] = {}
    root = job.path.resolve()
    exports = _files(job.exports)
    folders = [folder for folder in exports if folder.is_dir() and not folder.is_symlink()]
    inner = [(str(path.relative_to(job.exports)), path) for folder in folders for path in sorted(folder.rglob("*"))]
    logs = [log_of(job.path, rank) for rank in ranks_with_logs(job.path)]
    plain = [(path.name, path) for path in [*logs, *_files(job.report), *exports]]
    for name, path in [*plain, *inner]:
        if path.is_file() and path.resolve().is_relative_to(root):
            found[name] = path
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _log(path: Path, after: int) -> tuple[bytes, bool]:
    size = size_of(path)
    # A log of many megabytes is shown from its last part on: the download has all of it.
    skipped = after == 0 and size > LOG_BYTES
    lines, following = read_lines(path, size - LOG_BYTES if skipped else after, LOG_BYTES)
    texts = [line.decode("utf-8", errors="replace") for line in lines[1 if skipped else 0 :]]
    answer = {"next": following, "lines": texts, "skipped": skipped, "restarted": following < after}
    return bytes(Json(answer).body), True
