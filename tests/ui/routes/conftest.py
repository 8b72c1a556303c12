"""The page's own routes alone: no gate, no gradio, and no worker behind them."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.routes.api import make_router
from studio.ui.server.services import Services


@pytest.fixture
def page(settings: Settings) -> TestClient:
    """A client of all routes; modules whose jobs start something have one of their own."""
    app = FastAPI()
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    app.include_router(make_router(services))
    return TestClient(app)
