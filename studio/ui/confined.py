"""What gradio would do for whoever asks, and this page must not: open files that nobody uploaded, fetch addresses.

gradio takes a file of any component's value by its path. It checks that the path was uploaded only after `launch()`,
which we do not call, and it downloads where the path is an address. Relies on gradio's internals, hence the exact
minor version in pyproject.toml; tests/security fail when they change.
"""

from __future__ import annotations

from urllib.parse import unquote

import gradio as gr
from gradio import processing_utils

_PROXY = "/proxy="
_FILES = ("/file=", "/file/")


def confine_files(blocks: gr.Blocks) -> None:
    """Let a value name uploaded files only, and no address."""
    blocks.has_launched = True  # read by nothing but that check
    processing_utils.async_ssrf_protected_download = _refuse_address


def fetches(path: str) -> bool:
    """Whether a request's path asks gradio to fetch something from elsewhere, which no page of ours needs."""
    plain = unquote(path).lower()
    return _PROXY in plain or any(mark in plain and "://" in plain.partition(mark)[2] for mark in _FILES)


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise gr.Error("An address is not fetched: upload the file.", print_exception=False)
