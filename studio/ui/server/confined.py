"""What gradio would do for whoever asks, and this page must not: open files that nobody uploaded, fetch addresses.

gradio takes a file of any component's value by its path. It checks that the path was uploaded only after `launch()`,
which we do not call, and it downloads where the path is an address. Relies on gradio's internals, hence the exact
minor version in pyproject.toml; tests/security fail when they change.
"""

from __future__ import annotations

from urllib.parse import unquote

import gradio as gr
from gradio import processing_utils
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.reach import reading_for
from studio.settings import Settings

_PROXY = "/proxy="
_FILES = ("/file=", "/file/")


class ReadingForPage:
    """ASGI middleware: what is read while a request is answered, is read within the reach of the page."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; what the application starts at its beginning inherits it too."""
        with reading_for(self.settings):
            await self.app(scope, receive, send)


def confine_files(blocks: gr.Blocks) -> None:
    """Let a value name uploaded files only, and no address."""
    blocks.has_launched = True  # read by nothing but that check
    processing_utils.async_ssrf_protected_download = _refuse_address


def fetches(path: str) -> bool:
    """Whether a request's path asks gradio to fetch something from elsewhere, which no page of ours needs."""
    plain = unquote(path).lower()
    return _PROXY in plain or any(mark in plain and "://" in plain.partition(mark)[2] for mark in _FILES)


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise gr.Error("URLs are not downloaded: upload the file.", print_exception=False)
