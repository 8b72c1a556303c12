"""What the tests of the tabs share: the services of a home, without a chat server and a data worker."""

from __future__ import annotations

import pytest

from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.server.services import Services


@pytest.fixture
def services(settings: Settings) -> Services:
    return Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
