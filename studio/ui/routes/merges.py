"""The route of a sweep of merges: the scores of its children, while they are made and afterwards."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from studio.errors import StudioError
from studio.merge.curve import MEASURES, curve_of
from studio.merge.recipe import read_recipe
from studio.merge.sweep import places
from studio.ui.routes.answers import Json
from studio.ui.routes.runlist import RunBook


def make_router(book: RunBook) -> APIRouter:
    """Make the route over these rows."""
    router = APIRouter(prefix="/api/merges")

    @router.get("/curve")
    def curve(group: str) -> Json:
        ids = [row["id"] for row in book.rows() if row["kind"] == "merge" and group and row["group"] == group]
        jobs = [job for job in map(book.find, ids) if job is not None]
        if not jobs:
            raise HTTPException(404, "there is no such sweep")
        found = curve_of(jobs)
        title = _title(str(jobs[0].request.config.get("recipe")), found["place"])
        return Json(found | {"title": title, "measured": MEASURES.get(found["measure"], "")})

    return router


def _title(recipe: str, place: str) -> str:
    """What the varied number is called."""
    try:
        return places(read_recipe(recipe)).get(place, place)
    except StudioError:
        return place
