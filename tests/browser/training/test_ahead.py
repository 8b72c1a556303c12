"""The libraries of a training are imported while a person sets it up: the run then begins at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from playwright.sync_api import Page, expect

from studio.jobs import list_jobs, request_stop, wait
from tests.benchmarks.page.first import warm_processes
from tests.support.prepared import link_model

if TYPE_CHECKING:
    from tests.browser.conftest import Serve


@pytest.mark.long
def test_libraries_are_imported_before_start_is_pressed(
    page: Page, serve: Serve, model_path: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    link_model(model_path, home)
    server = serve(home, STUDIO_AHEAD="1")
    page.goto(f"{server.url}#tab=method")
    expect(page.locator(".plan-text:visible")).to_contain_text("GB", timeout=120_000)
    assert not (home / "ahead").exists(), "who only looks has nothing imported"
    page.get_by_role("tab", name="Training").click()
    warm = _warm(home)
    page.get_by_role("tab", name="Method").click()
    page.locator(".plan-start:visible").click()
    end = time.monotonic() + 120
    while not (jobs := list_jobs(server.settings.jobs)) or jobs[0].state().pid is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert psutil.Process(jobs[0].state().pid).ppid() == warm.pid
    request_stop(jobs[0], now=True)
    assert wait(jobs[0], 60).final


def _warm(home: Path) -> psutil.Process:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if found := warm_processes(home):
            return found[0]
        time.sleep(0.1)
    pytest.fail("nothing was imported")
