"""The page's own routes, put together by subject.

Everything live on the page comes from here by `fetch`, because a GET of our own has status codes, needs no
queue and survives a restart. The gate stands before these routes as before all others.
"""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse

from studio.config import RunConfig
from studio.config.presets import DEMO, load_named
from studio.errors import StudioError
from studio.jobs import JobFolder
from studio.jobs.actions.client import get_ready
from studio.train import preflight
from studio.ui.device import device_line
from studio.ui.form.planwords import waits_for
from studio.ui.routes import actions, compare, data, docs, jobs, merges, models, trying
from studio.ui.routes.answers import Json, refusing
from studio.ui.server.services import Services
from studio.ui.server.theme import served_assets

FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter()
    book = services.book

    def job_of(job_id: str) -> JobFolder:
        job = book.find(job_id)
        if job is None:
            raise HTTPException(404, "there is no such job")
        return job

    router.include_router(jobs.make_router(book, job_of))
    router.include_router(actions.make_router(services, job_of))
    router.include_router(trying.make_router(services, job_of))
    router.include_router(compare.make_router(services, book))
    router.include_router(merges.make_router(book))
    router.include_router(data.make_router(services))
    router.include_router(models.make_router(services))
    router.include_router(docs.make_router())
    router.include_router(_own_router(services))
    return router


def demo_seconds(config: RunConfig, services: Services) -> float | None:
    """Seconds that the demo takes by its plan; None where it cannot run."""
    try:
        return preflight.check(config, services.settings, services.data).plan.seconds
    except StudioError:  # Start says why
        return None


def _own_router(services: Services) -> APIRouter:
    """What the page asks of the studio itself: this machine, what is being prepared, our static files."""
    router = APIRouter()
    assets = served_assets()

    @router.get("/api/device")
    def device() -> Json:
        return Json(device_line(services.settings))

    @router.get("/api/preparing")
    def preparing() -> Json:
        return Json({"text": services.preparation.text})

    @router.post("/api/ahead")
    def ahead() -> Json:
        if services.settings.ahead:
            with refusing():
                get_ready(services.settings)
        return Json({})

    @router.get("/api/demo")
    def demo() -> Json:
        config = load_named(DEMO)
        waits = bool(waits_for(config, services))
        return Json({"seconds": None if waits else demo_seconds(config, services), "preparing": waits})

    @router.get("/studio/{name:path}")
    def asset(name: str) -> FileResponse:
        path = assets.get(name)
        if path is None:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, headers=FOR_EVER)

    return router
