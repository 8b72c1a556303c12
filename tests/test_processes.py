"""What the studio's children find in their environment."""

from __future__ import annotations

import os

import pytest

from studio.processes import WAITING, child_environment


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}], ids=str)
def test_threads_wait_as_the_person_says_or_briefly(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    made = child_environment(MORE="1")
    assert {name: made[name] for name in WAITING if name in made} == (given or WAITING)
    assert made["MORE"] == "1"
    assert made["PATH"] == os.environ["PATH"]
