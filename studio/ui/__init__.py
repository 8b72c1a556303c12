"""The face: the only package that imports gradio, and the only one that a browser talks to.

Importing gradio costs about half of the page's start, and half of that is spent on writing `.pyi` files next to
the sources of components (gradio's `component_meta`), which nothing here reads. So it is imported once, here,
with that step off. It relies on gradio's internals, hence the exact minor version in pyproject.toml; if they
change, the import is slower and nothing else.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

# Read by gradio while it is imported; anything but "True" is off.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"


def _import_gradio() -> None:
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no interface file is wanted")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        import gradio  # noqa: F401
        from gradio import component_meta
    finally:
        inspect.getfile = original
    component_meta.create_or_modify_pyi = lambda *args, **kwargs: None


_import_gradio()
