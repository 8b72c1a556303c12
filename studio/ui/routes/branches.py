"""Routes by which a finished or stopped training is gone on with: in place, or as a longer run of its own."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from studio.errors import StudioError
from studio.jobs import JobFolder, resume
from studio.jobs.actions.branching import branch, extended, find_end
from studio.jobs.actions.samedata import require_same_files
from studio.jobs.store.checkpoints import last_whole
from studio.jobs.store.folder import free_name
from studio.train import preflight
from studio.ui.server.services import Services


class Extension(BaseModel):
    """Body of an extension."""

    epochs: float


def make_branch_router(services: Services, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes; `job_of` looks a job up or answers 404."""
    router = APIRouter()

    @router.post("/api/jobs/{job_id}/resume")
    def go_on(job_id: str) -> Response:
        try:
            return JSONResponse({"step": resume(services.settings, job_of(job_id)).step})
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error

    @router.post("/api/jobs/{job_id}/extend")
    def extend(job_id: str, body: Extension) -> Response:
        job = job_of(job_id)
        try:
            checkpoint = find_end(job)
            require_same_files(job, services.settings)  # before the data are counted, which takes its time
            checked = preflight.check(extended(job, body.epochs), services.settings, services.data)
            wanted = f"{job.request.name}-{checked.config.training.epochs:g}-epochs"
            name = free_name(services.settings.jobs, wanted)
            made = branch(services.settings, job, checkpoint, name, checked.config, checked.plan.steps)
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error
        return JSONResponse({"id": made.id})

    return router


def resumable(job: JobFolder) -> int | None:
    """Step from which a training that ended early can go on; None if it cannot."""
    state = job.state()
    if not state.final or state.status == "completed":
        return None
    checkpoint = last_whole(job.checkpoints)
    return None if checkpoint is None else checkpoint.step
