"""The pages of docs/ as a person reads them in the browser; help texts of the form link to them."""

from __future__ import annotations

import re

from fastapi import APIRouter, HTTPException
from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse

from studio.settings import DOCS
from studio.ui.server.theme import DOCS_STYLE, asset_url

_LINK = re.compile(r'href="([a-z-]+)\.md')
_HEADING = re.compile(r"<(h[1-6])>(.*?)</\1>")


def make_router() -> APIRouter:
    """Make the route."""
    router = APIRouter(prefix="/api/docs")
    pages = {path.stem: path for path in DOCS.glob("*.md")}

    @router.get("/{name}")
    def page(name: str) -> HTMLResponse:
        path = pages.get(name)
        if path is None:
            raise HTTPException(404, "there is no such page")
        return HTMLResponse(as_page(path.read_text(encoding="utf-8")))

    return router


def as_page(text: str) -> str:
    """Turn one of our Markdown pages into a whole page; links to others of docs/ lead to their pages here."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    body = _HEADING.sub(lambda found: f'<{found[1]} id="{_anchor(found[2])}">{found[2]}</{found[1]}>', body)
    linked = _LINK.sub(r'href="/api/docs/\1', body)
    title = text.lstrip("# ").partition("\n")[0]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · Finetune Studio</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{asset_url(DOCS_STYLE)}"></head><body><main>'
        f"{linked}</main></body></html>"
    )


def _anchor(heading: str) -> str:
    """The id that GitHub gives a heading, which links in docs/ go by."""
    plain = re.sub(r"<[^>]+>", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
