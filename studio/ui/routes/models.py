"""Routes of models: the list to choose from, what the Hub says of one, and its download."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from studio.errors import StudioError
from studio.models.catalog.hub import hub_folder, hub_name
from studio.models.catalog.hubaccess import bytes_in, require_hub_id
from studio.models.catalog.hubcard import find_models, hub_card
from studio.models.plan.browse import listed
from studio.train.runs import run_offers
from studio.ui.routes.answers import Json, refusing
from studio.ui.server.services import Services

LONGEST = 200


class Wanted(BaseModel):
    """A model of the Hub: its id, and a branch, tag or commit of it."""

    name: str = Field(max_length=LONGEST)
    revision: str = Field("main", max_length=LONGEST)

    @property
    def model(self) -> tuple[str, str]:
        """Name and revision; an empty revision is main.

        Raises:
            HTTPException: 409, the name is not a Hub id.
        """
        with refusing():
            return require_hub_id(self.name), self.revision or "main"


Asked = Annotated[Wanted, Query()]


def make_router(services: Services) -> APIRouter:
    """Make the routes over these services."""
    router = APIRouter(prefix="/api/models")
    downloads, settings = services.downloads, services.settings

    @router.get("")
    def models() -> Json:
        return Json({"models": [*run_offers(settings), *listed(settings)]})

    @router.get("/search")
    def search(words: Annotated[str, Query(max_length=LONGEST)]) -> Json:
        try:
            return Json({"models": find_models(words), "problem": ""})
        except StudioError as error:
            return Json({"models": [], "problem": _said(error)})

    @router.get("/hub")
    def card(wanted: Asked) -> Json:
        name, revision = wanted.model
        try:
            return Json({"card": hub_card(name, revision).as_dict(), "problem": ""})
        except StudioError as error:
            return Json({"card": None, "problem": _said(error)})

    @router.get("/download")
    def how_far(wanted: Asked) -> Json:
        return Json(_state(*wanted.model))

    @router.post("/download")
    def begin(wanted: Wanted) -> Json:
        downloads.begin(*wanted.model)
        return Json(_state(*wanted.model))

    @router.post("/download/stop")
    def stop(wanted: Wanted) -> Json:
        downloads.stop(*wanted.model)
        return Json(_state(*wanted.model))

    def _state(name: str, revision: str) -> dict[str, Any]:
        folder = hub_folder(settings, name, revision)
        here, begun = hub_name(folder) is not None, bytes_in(folder) > 0
        return {"here": here, "begun": begun, "download": downloads.value(name, revision)}

    return router


def _said(error: StudioError) -> str:
    """The error at the field that it is about, which need not be named there."""
    return StudioError(error.what, fix=error.fix).sentence
