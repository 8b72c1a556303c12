"""Routes of what a run's notices offer: start again with a change, and the log around a line."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import StudioError
from studio.jobs import JobFolder, list_jobs, submit
from studio.jobs.copies import changed_config
from studio.jobs.logs import lines_around
from studio.train import preflight
from studio.ui.answers import Json
from studio.ui.runlist import RunBook
from studio.ui.services import Services

STAMP = len("20261124-153012-")  # a job's id is the time and its name
UNCACHED = {"cache-control": "no-store"}


class Again(BaseModel):
    """Body of a new start: the options to change, exactly as the run offers them."""

    change: dict[str, Any]


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter()
    book = RunBook(services.settings, services.summaries)

    def job_of(job_id: str) -> JobFolder:
        job = book.find(job_id)
        if job is None:
            raise HTTPException(404, "there is no such job")
        return job

    @router.post("/api/jobs/{job_id}/again")
    def again(job_id: str, body: Again) -> Json:
        found = job_of(job_id)
        # Only what the run itself proposes: any other config has to pass the form, which confines its paths.
        offered = [found.state().change, *(notice.get("change") for notice in book.summary(found).notices)]
        if not body.change or body.change not in offered:
            raise HTTPException(409, "the run does not offer this change")
        try:
            request = found.request
            config = build(RunConfig, changed_config(request.config, body.change), "job.yaml")
            checked = preflight.check(config, services.settings, services.data)
            name = next_name(request.name, {job.id[STAMP:] for job in list_jobs(services.settings.jobs)})
            job = submit(services.settings, "train", name, checked.config.model_dump(mode="json"))
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error
        return Json({"id": job.id, "name": name})

    @router.get("/api/jobs/{job_id}/log/around")
    def around(job_id: str, line: int = Query(ge=1)) -> Json:
        first, lines = lines_around(job_of(job_id).log_path, line)
        return Json({"first": first, "line": line, "lines": lines}, headers=UNCACHED)

    return router


def next_name(name: str, taken: set[str]) -> str:
    """Return the name of a run's next try: demo, demo-2, demo-3."""
    stem = re.sub(r"-\d+$", "", name)
    return next(one for number in range(2, len(taken) + 3) if (one := f"{stem}-{number}") not in taken)
