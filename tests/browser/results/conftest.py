"""A finished run, of which results are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.jobs import JobFolder
from tests.browser.conftest import Server
from tests.ui.made_jobs import made_run


@pytest.fixture
def run(server: Server, leftovers: list[Path]) -> JobFolder:
    """One in the server's home; all jobs there are removed after the test."""
    made = made_run(server.settings.jobs)
    leftovers.append(server.settings.jobs)
    return made
