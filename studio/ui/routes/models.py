"""Routes of models: the list to choose from, what the Hub says of one, and its download."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from studio.errors import StudioError
from studio.models.catalog.hub import hub_folder, hub_name
from studio.models.catalog.hubaccess import bytes_in, is_hub_id
from studio.models.catalog.hubcard import find_models, hub_card
from studio.models.plan.browse import listed
from studio.ui.routes.answers import Json
from studio.ui.server.services import Services

LONGEST = 200
Name = Annotated[str, Query(max_length=LONGEST)]


class Wanted(BaseModel):
    """Body of a download: a Hub id, and a branch, tag or commit of it."""

    name: str = Field(max_length=LONGEST)
    revision: str = Field("main", max_length=LONGEST)


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter(prefix="/api/models")
    downloads, settings = services.downloads, services.settings

    @router.get("")
    def models() -> Json:
        return Json({"models": listed(settings)})

    @router.get("/search")
    def search(words: Name) -> Json:
        try:
            return Json({"models": find_models(words), "problem": ""})
        except StudioError as error:
            return Json({"models": [], "problem": _said(error)})

    @router.get("/hub")
    def card(name: Name, revision: Name = "main") -> Json:
        try:
            return Json({"card": hub_card(_hub_id(name), revision or "main").as_dict(), "problem": ""})
        except StudioError as error:
            return Json({"card": None, "problem": _said(error)})

    @router.get("/download")
    def how_far(name: Name, revision: Name = "main") -> Json:
        wanted = Wanted(name=_hub_id(name), revision=revision or "main")
        return Json(_state(wanted))

    @router.post("/download")
    def begin(wanted: Wanted) -> Json:
        downloads.begin(_hub_id(wanted.name), wanted.revision or "main")
        return Json(_state(wanted))

    @router.post("/download/stop")
    def stop(wanted: Wanted) -> Json:
        downloads.stop(_hub_id(wanted.name), wanted.revision or "main")
        return Json(_state(wanted))

    def _state(wanted: Wanted) -> dict[str, Any]:
        revision = wanted.revision or "main"
        folder = hub_folder(settings, wanted.name, revision)
        here, begun = hub_name(folder) is not None, bytes_in(folder) > 0
        return {"here": here, "begun": begun, "download": downloads.value(wanted.name, revision)}

    return router


def _said(error: StudioError) -> str:
    """The error at the field that it is about, which need not be named there."""
    return StudioError(error.what, fix=error.fix).sentence


def _hub_id(name: str) -> str:
    if not is_hub_id(name):
        raise HTTPException(409, "This is not a Hub id of the form org/name.")
    return name
