"""Routes by which an export is tried with a server of another maker: what there is, start, state, stop.

A request names a job and one of the servers of the table, nothing else: what is run and with which files is decided by
the job's own folder and by the environment of whoever started the studio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from studio.errors import StudioError
from studio.export.trying.offers import offer, servers_for
from studio.export.trying.programs import PROGRAMS, Tried
from studio.export.trying.running import why_failed
from studio.jobs import JobFolder
from studio.ui.routes.answers import Json, refusing
from studio.ui.server.services import Services


class Start(BaseModel):
    """Body of a start: which server."""

    server: Tried


def make_router(services: Services, job_of: Callable[[str], JobFolder]) -> APIRouter:
    """Make the routes; `job_of` finds a job or answers 404."""
    router = APIRouter(prefix="/api/jobs/{job_id}/trying")

    @router.get("")
    def look(job_id: str) -> Json:
        return Json(_state(services, job_of(job_id)))

    @router.post("/start")
    def start(job_id: str, body: Start) -> Json:
        found = job_of(job_id)
        with refusing():
            services.trials.start(found, body.server)
        return Json(_state(services, found))

    @router.post("/stop")
    def stop(job_id: str) -> Json:
        found = job_of(job_id)
        services.trials.stop(found.id)
        return Json(_state(services, found))

    return router


def _state(services: Services, job: JobFolder) -> dict[str, Any]:
    """What the page draws: {"servers": [{"server", "title", "reason", "install"}], "trial": {...} or None}.

    `reason` is "" where the server can be started, and `install` only there where it is missing.
    """
    servers = []
    for server in servers_for(job):
        program, reason, install = PROGRAMS[server], "", ""
        try:
            offer(job, server, services.settings)
        except StudioError as error:
            reason = error.what
            install = program.install if "not installed" in error.what else ""
        servers.append({"server": server, "title": program.title, "reason": reason, "install": install})
    trial = services.trials.of(job.id)
    if trial is None:
        return {"servers": servers, "trial": None}
    state = trial.state
    told: dict[str, Any] = {
        "server": trial.offer.server, "title": trial.offer.program.title, "state": state, "url": trial.url,
        "name": trial.offer.served.path, "seconds": round(trial.seconds), "log": trial.log.name,
        "lines": trial.lines() if state in ("starting", "failed") else [],
        "why": why_failed(trial) if state == "failed" else "",
    }  # fmt: skip
    return {"servers": servers, "trial": told}
