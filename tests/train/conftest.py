"""What the training tests share: the tiny model, one thread, quiet libraries, the trainers that a job made."""

from __future__ import annotations

from typing import Any

import pytest

from studio.train.loop.callbacks import JobCallback
from tests.parity.fixtures import quick_and_quiet, tiny

__all__ = ["quick_and_quiet", "tiny"]


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that the worker made, for a look at them afterwards."""
    made: list[Any] = []
    original = JobCallback.watch

    def watch(self: JobCallback, trainer: Any) -> None:
        made.append(trainer)
        original(self, trainer)

    monkeypatch.setattr(JobCallback, "watch", watch)
    return made
