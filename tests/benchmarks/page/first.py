"""How soon a training is under way: from a click on Start on the page to the end of its first step.

    python -m tests.benchmarks.page.first HOME      HOME: one where the demo has run, so that the model is there
Once as soon as the page has a plan, and once with the libraries imported, as they are after a person has clicked on
anything (docs/jobs.md). The validation before the first step is a part of it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright

from studio.jobs import JobFolder, list_jobs, read_events, request_stop, wait
from studio.settings import read_settings
from tests.benchmarks.page.start import served
from tests.conftest import CHROMIUM_ARGUMENTS

GOAL = 10.0
_LIMIT = 120.0  # seconds
_OFTEN = 0.02


@dataclass(frozen=True)
class First:
    """Seconds from the click to the end of the first step: at once, and with the libraries imported."""

    at_once: float
    ready: float


def first_steps(home: Path) -> First:
    """Start the demo twice, each time in a home of its own.

    Args:
        home: its model and what is known of this machine are taken; it is not changed.
    """
    return First(_seconds(home, ready=False), _seconds(home, ready=True))


def _seconds(home: Path, *, ready: bool) -> float:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        own = Path(folder) / "home"
        own.mkdir()
        shutil.copytree(home / "models", own / "models")
        shutil.copy(home / "device.json", own / "device.json")
        with served(own) as (address, _, _):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{address}#tab=method")
            page.locator(".plan-text:visible").filter(has_text="GB").wait_for(timeout=120_000)
            if ready:
                _imported(page, own)
            clicked = time.time()
            page.locator(".plan-start:visible").click()
            job = _begun(own)
            try:
                return _first_step(job) - clicked
            finally:
                request_stop(job, now=True)
                wait(job, 60)
                browser.close()


def _imported(page: Page, home: Path) -> None:
    """Click on something, and wait until the libraries are imported: then their process takes no time any more."""
    page.locator("#tab-training-button").click()
    page.locator("#tab-method-button").click()
    end, before = time.monotonic() + _LIMIT, -1.0
    while time.monotonic() < end:
        found = warm_processes(home)
        taken = sum(sum(one.cpu_times()[:2]) for one in found)
        if found and taken > 1 and taken == before:
            return
        before = taken
        time.sleep(1)
    raise TimeoutError("the libraries were not imported")


def warm_processes(home: Path) -> list[psutil.Process]:
    """The processes of a home that import the libraries for its jobs."""
    return [
        one for one in psutil.process_iter(["cmdline"])
        if "studio.jobs.run.warm" in (one.info["cmdline"] or []) and one.environ().get("STUDIO_HOME") == str(home)
    ]  # fmt: skip


def _begun(home: Path) -> JobFolder:
    settings = replace(read_settings(), home=home)
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end:
        if jobs := list_jobs(settings.jobs):
            return jobs[0]
        time.sleep(_OFTEN)
    raise TimeoutError("nothing was started")


def _first_step(job: JobFolder) -> float:
    end, offset = time.monotonic() + _LIMIT, 0
    while time.monotonic() < end:
        events, offset = read_events(job.events_path, offset)
        for event in events:
            if event["kind"] == "metric" and "loss" in event["values"]:
                return float(event["time"])
        time.sleep(_OFTEN)
    raise TimeoutError(f"no step: {job.state()}")


if __name__ == "__main__":
    found = first_steps(Path(sys.argv[1]))
    print(f"first step {found.at_once:.1f} s after the click; {found.ready:.1f} s with the libraries imported")
    raise SystemExit(found.ready > GOAL)
