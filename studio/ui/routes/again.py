"""Routes of what a run's notices offer: start again with a change, and the log around a line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import StudioError
from studio.jobs import JobFolder, submit
from studio.jobs.actions.copies import changed_config
from studio.jobs.store.folder import free_name
from studio.jobs.store.logs import lines_around
from studio.train import preflight
from studio.ui.routes.answers import Json
from studio.ui.server.services import Services

UNCACHED = {"cache-control": "no-store"}


class Again(BaseModel):
    """Body of a new start: the options to change, exactly as the run offers them."""

    change: dict[str, Any]


def make_router(services: Services, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes; `job_of` finds a job or answers 404."""
    router = APIRouter()

    @router.post("/api/jobs/{job_id}/again")
    def again(job_id: str, body: Again) -> Json:
        found = job_of(job_id)
        # Only what the run itself proposes: any other config has to pass the form, which confines its paths.
        offered = [found.state().change, *(notice.get("change") for notice in services.summaries.of(found).notices)]
        if not body.change or body.change not in offered:
            raise HTTPException(409, "the run does not offer this change")
        try:
            request = found.request
            config = build(RunConfig, changed_config(request.config, body.change), "job.yaml")
            checked = preflight.check(config, services.settings, services.data)
            stem = re.sub(r"-\d+$", "", request.name)  # demo, demo-2, demo-3
            name = free_name(services.settings.jobs, stem)
            job = submit(services.settings, "train", name, checked.config.model_dump(mode="json"))
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error
        return Json({"id": job.id, "name": name})

    @router.get("/api/jobs/{job_id}/log/around")
    def around(job_id: str, line: int = Query(ge=1)) -> Json:
        first, lines = lines_around(job_of(job_id).log_path, line)
        return Json({"first": first, "line": line, "lines": lines}, headers=UNCACHED)

    return router
