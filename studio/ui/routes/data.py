"""Routes of work on a data set: its columns, profile, cleaned copy, a pair of duplicates, how far a count is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from studio.data.worker.pool import asker
from studio.errors import StudioError
from studio.ui.routes.answers import Json
from studio.ui.server.services import Services
from studio.ui.tabs.data.profile import opened_pair, place_of
from studio.ui.tabs.data.tasks import told


class Asked(BaseModel):
    """Body of a question about a file: the source as data.train holds it, and the method that is to learn from it."""

    source: dict[str, Any]
    method: str = Field(max_length=40)


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter(prefix="/api")

    @router.get("/counting")
    def counting() -> Json:
        found = services.data.counting(asker.get())
        text, share = told(*found, []) if found else ("", None)
        return Json({"text": text, "share": share})

    @router.post("/counting/cancel")
    def stop_counting() -> Json:
        services.data.stop_counting(asker.get())
        return Json({})

    @router.post("/data/columns")
    def columns(asked: Asked) -> Json:
        try:
            found = services.data.call("columns", source=asked.source, method={"name": asked.method})
        except StudioError as error:
            return Json({"error": error.sentence})
        return Json({"error": "", **found})

    @router.get("/data/{page}/pair")
    def pair(page: str, first: str, second: str) -> Json:
        # Of the data that was profiled, whatever the form says by now.
        task = services.tasks.find(page, "profile")
        if task is None:
            raise HTTPException(404, "there is no such profile")
        args = {name: task.calls[0][1][name] for name in ("data", "method")}
        try:
            answer = services.data.call("pair", first=place_of(first), second=place_of(second), **args)
        except StudioError as error:
            return Json({"error": error.sentence})
        return Json({"error": "", **opened_pair(answer)})

    @router.get("/data/{page}/{kind}")
    def task(page: str, kind: str, after: int = Query(0, ge=0)) -> Json:
        found = services.tasks.find(page, kind)
        if found is None:
            raise HTTPException(404, "there is no such work on data")
        return Json(found.value(after))

    @router.post("/data/{page}/{kind}/cancel")
    def cancel(page: str, kind: str) -> Json:
        services.tasks.cancel(page, kind)
        return Json({})

    return router
