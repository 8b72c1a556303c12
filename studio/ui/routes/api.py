"""The page's own routes: jobs, events and logs from a byte offset, downloads, stop, and our static files.

Everything live on the page comes from here by `fetch`, because a GET of our own has status codes, needs no
queue and survives a restart. The gate stands before these routes as before all others; nothing here trusts a
name from the address: jobs and files are looked up among those that exist.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from starlette.responses import FileResponse, Response

from studio.data.worker.pool import asker
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder, ensure_supervisor, request_stop
from studio.jobs.store.checkpoints import whole_steps
from studio.jobs.store.events import read_events, read_lines
from studio.methods import METHODS
from studio.reach import open_in
from studio.ui.device import device_line
from studio.ui.routes import again as againroutes
from studio.ui.routes import compare as compareroutes
from studio.ui.routes import queue as queueroutes
from studio.ui.routes.answers import HeldFile, Json
from studio.ui.routes.branches import make_branch_router, resumable
from studio.ui.routes.kept import KeptAnswers, file_stamp
from studio.ui.routes.runlist import RunBook, state_dict, summary_dict
from studio.ui.server.services import Services
from studio.ui.server.theme import served_assets
from studio.ui.tabs.data.profile import opened_pair, place_of
from studio.ui.tabs.data.tasks import told

NO_STORE = {"cache-control": "no-store"}
FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
LOG_BYTES = 256 * 1024


class Stop(BaseModel):
    """Body of a stop. `now` does not wait for the step to finish."""

    now: bool = False


# Every run has these in a chart or a tile already.
_COMMON = ("eval_loss", "mean_token_accuracy")


def own_metrics(config: dict[str, Any]) -> list[dict[str, str]]:
    """Name and title of what a run's method reports beside the loss, for its charts."""
    method = METHODS.get(str((config.get("method") or {}).get("name")))
    found = method.metrics if method is not None else ()
    return [{"name": metric.name, "title": metric.title} for metric in found if metric.name not in _COMMON]


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter()
    book = RunBook(services.settings, services.summaries)
    kept = KeptAnswers()
    assets = served_assets()

    def job_of(job_id: str) -> JobFolder:
        job = book.find(job_id)
        if job is None:
            raise HTTPException(404, "there is no such job")
        return job

    router.include_router(compareroutes.make_router(services, book))

    @router.get("/api/jobs")
    def jobs(after: str | None = None, newest: int | None = Query(None, ge=1)) -> Response:
        # Scripts ask without `after` and get all rows; the page gets what changed since its last answer.
        return Json(book.rows() if after is None else book.changes(after, newest), headers=NO_STORE)

    @router.get("/api/device")
    def device() -> Response:
        return Json(device_line(services.settings), headers={"cache-control": "no-store"})

    @router.get("/api/preparing")
    def preparing() -> Response:
        return Json({"text": services.preparation.text}, headers={"cache-control": "no-store"})

    @router.get("/api/counting")
    def counting() -> Response:
        found = services.data.counting(asker.get())
        text, share = told(*found, []) if found else ("", None)
        return Json({"text": text, "share": share}, headers={"cache-control": "no-store"})

    @router.post("/api/counting/cancel")
    def stop_counting() -> Response:
        services.data.stop_counting(asker.get())
        return Json({})

    @router.get("/api/data/{page}/pair")
    def pair(page: str, first: str, second: str) -> Response:
        # Of the data that was profiled, whatever the form says by now.
        task = services.tasks.find(page, "profile")
        if task is None:
            raise HTTPException(404, "there is no such profile")
        args = {name: task.calls[0][1][name] for name in ("data", "method")}
        try:
            answer = services.data.call("pair", first=place_of(first), second=place_of(second), **args)
        except StudioError as error:
            return Json({"error": error.sentence}, headers={"cache-control": "no-store"})
        return Json({"error": "", **opened_pair(answer)}, headers={"cache-control": "no-store"})

    @router.get("/api/data/{page}/{kind}")
    def data_task(page: str, kind: str, after: int = Query(0, ge=0)) -> Response:
        task = services.tasks.find(page, kind)
        if task is None:
            raise HTTPException(404, "there is no such work on data")
        return Json(task.value(after), headers={"cache-control": "no-store"})

    @router.post("/api/data/{page}/{kind}/cancel")
    def cancel_data_task(page: str, kind: str) -> Response:
        services.tasks.cancel(page, kind)
        return Json({})

    @router.get("/api/jobs/{job_id}")
    def job(job_id: str) -> Response:
        found = job_of(job_id)
        files = [
            {"name": name, "bytes": path.stat().st_size, "url": f"/api/jobs/{found.id}/files/{name}"}
            for name, path in downloads(found).items()
        ]
        request = book.request(found)
        answer = book.row(found) | {
            "state": state_dict(found, found.state()),
            "summary": summary_dict(book.summary(found)),
            "config": request.config,
            "environment": found.environment(),
            "metrics": own_metrics(request.config),
            "resumable": resumable(found),
            "checkpoints": whole_steps(found.checkpoints),
            "branch": asdict(request.branch) if request.branch else None,
            "files": files,
        }
        return Json(answer, headers={"cache-control": "no-store"})

    @router.get("/api/jobs/{job_id}/events")
    def events(job_id: str, after: int = Query(0, ge=0)) -> Response:
        found = job_of(job_id)
        stamp = file_stamp(found.state_path, found.stop_path, found.events_path)
        answer = kept.get(("events", job_id, after), stamp, lambda: _events(found, after))
        # The clock for times in the events; the rest is the same for all who are as far.
        return Response(b'{"now": %.3f, ' % time.time() + answer[1:], media_type=Json.media_type, headers=NO_STORE)

    def _events(found: JobFolder, after: int) -> tuple[bytes, bool]:
        state = found.state()  # before the events: a final state means that they are all there
        page, following = read_events(found.events_path, after)
        summary = book.summary(found)
        answer = {
            "next": following,
            "more": following < _size(found.events_path) and following != after,
            "events": page,
            "state": state_dict(found, state),
            "summary": summary_dict(summary),
        }
        return bytes(Json(answer).body), not summary.behind

    @router.get("/api/jobs/{job_id}/log")
    def log(job_id: str, after: int = Query(0, ge=0)) -> Response:
        found = job_of(job_id)
        answer = kept.get(("log", job_id, after), file_stamp(found.log_path), lambda: _log(found, after))
        return Response(answer, media_type=Json.media_type, headers=NO_STORE)

    def _log(found: JobFolder, after: int) -> tuple[bytes, bool]:
        size = _size(found.log_path)
        # A log of many megabytes is shown from its last part on: the download has all of it.
        skipped = after == 0 and size > LOG_BYTES
        lines, following = read_lines(found.log_path, size - LOG_BYTES if skipped else after, LOG_BYTES)
        texts = [line.decode("utf-8", errors="replace") for line in lines[1 if skipped else 0 :]]
        answer = {"next": following, "lines": texts, "skipped": skipped, "restarted": following < after}
        return bytes(Json(answer).body), True

    @router.get("/api/jobs/{job_id}/files/{name}")
    def download(job_id: str, name: str) -> Response:
        found = job_of(job_id)
        path = downloads(found).get(name)
        if path is None:
            raise HTTPException(404, "there is no such file")
        try:
            inner = path.resolve().relative_to(found.path.resolve())
            return HeldFile(open_in(found.path, *inner.parts), name)
        except (OSError, ValueError, InputError) as error:  # gone since it was looked up, or a link that leads out
            raise HTTPException(404, "this file no longer exists") from error

    @router.post("/api/jobs/{job_id}/stop")
    def stop(job_id: str, body: Stop) -> Response:
        found = job_of(job_id)
        request_stop(found, now=body.now)
        try:
            ensure_supervisor(services.settings)  # it may have been killed, and a stop needs one
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error
        return Json(state_dict(found, found.state()))

    router.include_router(make_branch_router(services, job_of))

    router.include_router(queueroutes.make_router(services, job_of))
    router.include_router(againroutes.make_router(services, job_of))

    @router.get("/studio/{name}")
    def asset(name: str) -> Response:
        path = assets.get(name)
        if path is None:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, headers=FOR_EVER)

    return router


def downloads(job: JobFolder) -> dict[str, Path]:
    """Files of a job that may be downloaded, by name: its log, exports and reports.

    A link that leads out of the job's folder is left out.
    """
    found: dict[str, Path] = {}
    root = job.path.resolve()
    for path in [job.log_path, *_files(job.report), *_files(job.exports)]:
        if path.is_file() and path.resolve().is_relative_to(root):
            found[path.name] = path
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
