"""One supervisor is started for a home, however often and by whomever it is asked for while that takes its time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from studio.jobs.actions import client
from studio.jobs.store.files import write_json
from studio.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that are started in a supervisor's place, which never come to its lock."""
    found: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        found.append(begin(["sleep", "60"], **options))
        return found[-1]

    monkeypatch.setattr(client.subprocess, "Popen", popen)
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_one_that_is_still_starting_is_waited_for(
    settings: Settings, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        client.ensure_supervisor(settings)
    assert len(started) == 1
    # It had the lock and is about to leave: who comes now cannot rely on it.
    write_json(client.supervisor_record(settings.home), {"pid": started[0].pid, "start": 1.0})
    client.ensure_supervisor(settings)
    assert len(started) == 2
    started[1].kill()
    started[1].wait()
    client.ensure_supervisor(settings)
    assert len(started) == 3
    monkeypatch.setattr(client, "STARTING_SECONDS", 0.0)
    client.ensure_supervisor(settings)
    assert len(started) == 4
