"""Routes by which a person acts on a job: stop, move in the line, resume, extend, start again with a change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import JobFolder, ensure_supervisor, request_stop, resume, submit
from studio.jobs.actions.branching import branch, extended, find_end, require_same_files
from studio.jobs.actions.queue import Move, move
from studio.jobs.store.folder import free_name
from studio.jobs.store.request import changed_config
from studio.remote import asking as elsewhere
from studio.train import preflight
from studio.ui.components.selected import is_elsewhere
from studio.ui.routes.answers import Json, refusing
from studio.ui.routes.runlist import state_dict
from studio.ui.server.services import Services


class Stop(BaseModel):
    """Body of a stop. `now` does not wait for the step to finish."""

    now: bool = False


class Moved(BaseModel):
    """Body of a move: where to."""

    to: Move


class Extension(BaseModel):
    """Body of an extension."""

    epochs: float


class Again(BaseModel):
    """Body of a new start: the options to change, exactly as the run offers them."""

    change: dict[str, Any]


def make_router(services: Services, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes; `job_of` finds a job or answers 404."""
    router = APIRouter(prefix="/api/jobs/{job_id}")

    @router.post("/stop")
    def stop(job_id: str, body: Stop) -> Json:
        found = job_of(job_id)
        if is_elsewhere(found) and found.state().final:  # nobody follows it, and it may go on there
            with refusing():
                elsewhere.stop(services.settings, found)
            return Json(state_dict(found, found.state()))
        request_stop(found, now=body.now)
        with refusing():
            ensure_supervisor(services.settings)  # it may have been killed, and a stop needs one
        return Json(state_dict(found, found.state()))

    @router.post("/move")
    def move_job(job_id: str, body: Moved) -> Json:
        with refusing():
            place = move(services.settings, job_of(job_id), body.to)
            ensure_supervisor(services.settings)  # and so does what waits
        return Json({"place": place})

    @router.post("/pause")
    def pause(job_id: str) -> Json:
        with refusing():
            return Json({"status": elsewhere.pause(job_of(job_id))})

    @router.post("/resume")
    def go_on(job_id: str) -> Json:
        found = job_of(job_id)
        with refusing():
            if is_elsewhere(found):
                return Json({"said": elsewhere.go_on(services.settings, found)})
            return Json({"step": resume(services.settings, job_of(job_id)).step})

    @router.post("/extend")
    def extend(job_id: str, body: Extension) -> Json:
        job = job_of(job_id)
        with refusing():
            checkpoint = find_end(job)
            require_same_files(job, services.settings)  # before the data are counted, which takes its time
            checked = preflight.check(extended(job, body.epochs), services.settings, services.data)
            wanted = f"{job.request.name}-{checked.config.training.epochs:g}-epochs"
            name = free_name(services.settings.jobs, wanted)
            made = branch(services.settings, job, checkpoint, name, checked.config, checked.plan.steps)
        return Json({"id": made.id})

    @router.post("/again")
    def again(job_id: str, body: Again) -> Json:
        found = job_of(job_id)
        # Only what the run itself proposes: any other config has to pass the form, which confines its paths.
        offered = [found.state().change, *(notice.get("change") for notice in services.summaries.of(found).notices)]
        if not body.change or body.change not in offered:
            raise HTTPException(409, "the run does not offer this change")
        with refusing():
            request = found.request
            config = build(RunConfig, changed_config(request.config, body.change), "job.yaml")
            checked = preflight.check(config, services.settings, services.data)
            stem = re.sub(r"-\d+$", "", request.name)  # demo, demo-2, demo-3
            name = free_name(services.settings.jobs, stem)
            job = submit(services.settings, "train", name, checked.config.model_dump(mode="json"))
        return Json({"id": job.id, "name": name})

    return router
