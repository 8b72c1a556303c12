"""What the model tests share: a home that knows nothing of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.settings import Settings, read_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an empty home: measurements are tested here, and made up ones go no further."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    return read_settings()
