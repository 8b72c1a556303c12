"""What the tests of the page share."""

from __future__ import annotations

import pytest

from studio.ui.server import entrance


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password takes no second."""
    monkeypatch.setattr(entrance, "WRONG_SECONDS", 0.0)
