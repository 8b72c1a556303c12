"""`studio ui`: the page."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("ui")(ui)


def ui(
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; by default 7860.")] = None,
) -> None:
    """Open the studio in the browser."""
    from dataclasses import replace

    from studio.settings import read_settings

    _import_pandas_without_arrow()
    from studio.ui.server.app import serve  # gradio takes a second to import, which no other command should pay

    settings = read_settings()
    serve(settings if port is None else replace(settings, port=port))


def _import_pandas_without_arrow() -> None:
    """gradio imports pandas, and that Arrow where it is installed: 44 MB and 0.4 s that the page's process never uses.

    Other processes read the data; what asks for Arrow here later still gets it.
    """
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        return
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # an import of it says that it is not installed
    import pandas  # noqa: F401

    del sys.modules["pyarrow"]
