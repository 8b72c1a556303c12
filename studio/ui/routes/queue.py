"""Routes of the line of waiting jobs."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from studio.errors import StudioError
from studio.jobs import JobFolder, ensure_supervisor
from studio.jobs.actions.queue import Move, move
from studio.ui.server.services import Services


class Moved(BaseModel):
    """Body of a move: where to."""

    to: Move


def make_router(services: Services, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes; `job_of` finds a job or answers 404."""
    router = APIRouter()

    @router.post("/api/jobs/{job_id}/move")
    def move_job(job_id: str, body: Moved) -> dict[str, int]:
        try:
            place = move(services.settings, job_of(job_id), body.to)
            ensure_supervisor(services.settings)  # it may have been killed, and what waits needs one
        except StudioError as error:
            raise HTTPException(409, error.sentence) from error
        return {"place": place}

    return router
