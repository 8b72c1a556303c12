"""Routes for keeping and comparing runs: labels, sizes, comparison, removal.

As with the other routes, jobs are looked up among those that exist; a name from the address never becomes a path.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from studio.jobs import JobFolder, list_jobs
from studio.jobs.actions.removal import What, removal_question, remove_checkpoints, remove_job
from studio.jobs.store.finding import jobs_of_kind
from studio.jobs.store.labels import change_labels
from studio.jobs.views.compare import compare_runs, metrics_of
from studio.jobs.views.comparedtext import as_csv, as_markdown
from studio.jobs.views.disk import DiskBook
from studio.ui.routes.answers import NEVER_KEPT, Json, refusing
from studio.ui.server.services import Services

if TYPE_CHECKING:
    from studio.ui.routes.runlist import RunBook

# Measuring thousands of folders for the first time takes longer than a request may: the browser asks again.
SIZES_SECONDS = 2.0
MANY = 1000


class Labels(BaseModel):
    """Body of a change of labels; what is not given stays."""

    name: str | None = None
    tags: list[str] | None = None
    note: str | None = None
    archived: bool | None = None


class Removal(BaseModel):
    """Body of a question about, or of, a removal."""

    ids: list[str]
    what: What = "job"

    @property
    def once(self) -> list[str]:
        """The ids, each once."""
        return list(dict.fromkeys(self.ids))


def make_router(services: Services, book: RunBook) -> APIRouter:
    """Make the routes over these services and rows."""
    router = APIRouter(prefix="/api")
    disk = DiskBook()

    def jobs_of(ids: list[str]) -> list[JobFolder]:
        found = [book.find(one) for one in ids[:MANY]]
        there = [job for job in found if job is not None]
        if not ids or len(there) != len(ids):
            raise HTTPException(404, "one of these jobs no longer exists")
        return there

    @router.get("/compare")
    def comparison(ids: str, form: Literal["json", "markdown", "csv"] = "json") -> Response:
        runs = jobs_of(list(filter(None, ids.split(","))))
        with refusing():
            found = compare_runs(runs, services.summaries, disk, jobs_of_kind(services.settings.jobs, "evaluate"))
        if form == "json":
            return Json(found.as_dict() | {"metrics": _charted(runs)})
        text = as_csv(found) if form == "csv" else as_markdown(found)
        name = "comparison.csv" if form == "csv" else "comparison.md"
        headers = {**NEVER_KEPT, "content-disposition": f'attachment; filename="{name}"'}
        return PlainTextResponse(text, headers=headers)

    @router.get("/sizes")
    def sizes() -> Json:
        found, complete = disk.sizes(list_jobs(services.settings.jobs), SIZES_SECONDS)
        return Json({"sizes": found, "complete": complete})

    @router.get("/jobs/{job_id}/disk")
    def use(job_id: str) -> Json:
        return Json(disk.of(jobs_of([job_id])[0]).as_dict())

    @router.post("/jobs/{job_id}/labels")
    def label(job_id: str, body: Labels) -> Json:
        job = jobs_of([job_id])[0]
        with refusing():
            return Json(asdict(change_labels(job.path, **body.model_dump())))

    @router.post("/removal/question")
    def question(body: Removal) -> Json:
        jobs = jobs_of(body.once)
        with refusing():
            return Json(removal_question(services.settings, jobs, body.what).as_dict())

    @router.post("/removal")
    def remove(body: Removal) -> Json:
        jobs = jobs_of(body.once)
        act = remove_job if body.what == "job" else remove_checkpoints
        with refusing():
            return Json({"freed": sum(act(services.settings, job) for job in jobs)})

    return router


def _charted(runs: list[JobFolder]) -> list[dict[str, str]]:
    """Name and title of what the runs' methods report beside the loss, those of a validation after the others'."""
    found: dict[str, str] = {}
    for metric in (metric for job in runs for metric in metrics_of(job.request.config)):
        if metric.name != "eval_loss":
            found |= {metric.name: metric.title, f"eval_{metric.name}": f"{metric.title}, validation"}
    return [{"name": name, "title": title} for name, title in found.items()]
