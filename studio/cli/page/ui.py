"""`studio ui`: the page."""

from __future__ import annotations

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
    from studio.ui.server.app import serve  # gradio takes a second to import, which no other command should pay

    settings = read_settings()
    serve(settings if port is None else replace(settings, port=port))
