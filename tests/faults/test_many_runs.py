"""Ten thousand runs in the list: what the page asks for stays small, and so does what the supervisor does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from studio.config import RunConfig
from studio.jobs import Summaries
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.jobs.views.index import JobIndex
from studio.settings import Settings, read_settings
from studio.ui.routes import rowchanges
from studio.ui.routes.api import make_router
from studio.ui.routes.runlist import RunBook
from studio.ui.server.services import Services
from tests.conftest import Measured
from tests.faults.homes import many_runs, settle
from tests.support.prepared import link_model

if TYPE_CHECKING:
    from tests.browser.conftest import Server


def asked(settings: Settings) -> Callable[[str], dict[str, Any]]:
    app = FastAPI()
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    app.include_router(make_router(services))
    page = TestClient(app)
    return lambda after: page.get("/api/jobs", params={"after": after}).json()


def everything(ask: Callable[[str], dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], str]:
    """The rows as a page puts them together, and the version they are of."""
    rows: dict[str, dict[str, Any]] = {}
    version, reading = "", 1
    while reading:
        news = ask(version)
        if news["all"]:
            rows.clear()
        rows |= {row["id"]: row for row in news["rows"]}
        for job_id in news["gone"]:
            del rows[job_id]
        version, reading = news["version"], news["reading"]
    return rows, version


def test_the_page_is_told_what_changed(settings: Settings) -> None:
    ids = many_runs(settings.jobs, 30)
    ask = asked(settings)
    rows, version = everything(ask)
    assert sorted(rows, reverse=True) == ids and rows[ids[0]]["name"] == "run-29" and rows[ids[0]]["best"] == 0.5
    assert ask(version) == {"version": version, "all": False, "rows": [], "gone": [], "reading": 0}

    new = create_job(settings.jobs, "train", "new", RunConfig().model_dump(mode="json"))
    news = ask(version)
    assert [row["id"] for row in news["rows"]] == [new.id] and news["rows"][0]["place"] == 1 and not news["all"]
    # Somebody else changes a run that is long over, and another one is removed.
    old = settings.jobs / ids[20]
    write_state(old / "state.json", JobState(status="failed", created=1e9, finished=2e9, reason="x"))
    for path in (settings.jobs / ids[10]).iterdir():
        path.unlink()
    (settings.jobs / ids[10]).rmdir()
    news = ask(news["version"])
    assert [(row["id"], row["status"]) for row in news["rows"]] == [(ids[20], "failed")]
    assert news["gone"] == [ids[10]]
    # A page of another web process, or one that slept through more removals than are remembered, gets all.
    for strange in ("", "0123-4", version.partition("-")[0] + "-999", "x"):
        assert ask(strange)["all"] and len(ask(strange)["rows"]) == 30


def test_the_newest_come_first_and_then_all(settings: Settings) -> None:
    ids = many_runs(settings.jobs, 30)
    book = RunBook(settings, Summaries())
    news = book.changes("", newest=10)
    assert [row["id"] for row in news["rows"]] == ids[:10] and news["all"] and news["reading"] == 20
    news = book.changes(news["version"])
    assert len(news["rows"]) == 30 and news["all"] and news["reading"] == 0
    assert book.changes(news["version"], newest=10)["rows"] == []
    assert len(book.changes("", newest=30)["rows"]) == 30 and book.changes("", newest=30)["reading"] == 0


def test_a_folder_that_is_still_being_made_comes_later(settings: Settings) -> None:
    many_runs(settings.jobs, 3)
    ask = asked(settings)
    _, version = everything(ask)
    (settings.jobs / "20300101-000000-slow").mkdir()
    settle(settings.jobs)
    assert ask(version)["rows"] == []
    write_state(settings.jobs / "20300101-000000-slow" / "state.json", JobState(status="queued"))
    assert [row["id"] for row in ask(version)["rows"]] == ["20300101-000000-slow"]


def test_a_first_look_takes_a_moment_and_brings_the_newest(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = many_runs(settings.jobs, 700)
    ask = asked(settings)
    began = time.monotonic()
    news = ask("")
    assert time.monotonic() - began < 1.5  # 0.25 s of reading, and this machine is busy
    some = sorted((row["id"] for row in news["rows"]), reverse=True)
    assert some == ids[: len(some)] and news["reading"] == len(ids) - len(some) > 0
    rows, version = everything(ask)
    assert len(rows) == len(ids)
    assert ask(version)["rows"] == []
    # The next web process begins with what this one has read.
    assert len(everything(asked(settings))[0]) == len(ids)
    again = RunBook(settings, Summaries())
    monkeypatch.setattr(again, "request", lambda job: pytest.fail("it was read once more"))
    news = again.changes("")
    assert news["reading"] == 0 and {row["id"]: row for row in news["rows"]} == rows
    # Of another version of the studio it takes nothing.
    monkeypatch.setattr(rowchanges, "__version__", "0.0")
    assert RunBook(settings, Summaries()).changes("")["reading"] > 0


def test_a_look_at_many_resting_runs_reads_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = many_runs(settings.jobs, 520)
    index = JobIndex(settings.jobs)
    assert [job.id for job in index.look()[0]] == ids
    assert all(index.rest(job_id) for job_id in ids)
    stats: list[Path] = []
    original = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: (stats.append(self), original(self, **how))[1])
    for _ in range(5):
        assert index.look() == ([], []) and index.find(ids[-1]) is not None and index.find("none") is None
    # The folder of all jobs, the one that was looked for, and all of them once in two seconds.
    assert len(stats) <= 5 * 4 + 2 * len(ids)
    os.utime(settings.jobs / ids[300])
    end = time.monotonic() + 10
    while not (found := index.look()[0]):
        assert time.monotonic() < end
    assert [job.id for job in found] == [ids[300]]


@pytest.mark.alone
@pytest.mark.faults
def test_ten_thousand_runs_cost_little(settings: Settings) -> None:
    ids = many_runs(settings.jobs, 10_000)
    book = RunBook(settings, Summaries())
    while book.changes("")["reading"]:
        pass
    first = RunBook(settings, Summaries())
    began = time.process_time()
    assert len(first.changes("")["rows"]) == 10_000
    opened = time.process_time() - began
    running = create_job(settings.jobs, "train", "running", RunConfig().model_dump(mode="json"))
    version = first.changes("")["version"]
    time.sleep(2.5)
    began, wall = time.process_time(), time.monotonic()
    for number in range(40):
        write_state(running.state_path, JobState(status="running", started=float(number)))
        news = first.changes(version)
        version = news["version"]
        assert [row["id"] for row in news["rows"]] == [running.id]
        assert first.find(ids[-1]) is not None
        time.sleep(0.1)
    spent, wall = time.process_time() - began, time.monotonic() - wall
    supervisor = Supervisor(settings)
    began = time.process_time()
    supervisor.step()
    begun = time.process_time() - began
    began = time.process_time()
    for _ in range(20):
        supervisor.step()
        time.sleep(0.25)
    stepping = (time.process_time() - began) / 5
    print(f"\nfirst answer {opened:.2f} s, another {spent / 40 * 1e3:.1f} ms; step {begun:.2f} s, then {stepping:.1%}")
    assert opened < 1.0 and spent / 40 < 0.02 and stepping < 0.15


# What the page does from its first byte on, without what the browser was doing before.
PAINTED = """() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const rows = performance.getEntriesByType("resource").filter((entry) => entry.name.includes("/api/jobs?after="));
  return { paint: paint?.startTime, asked: rows[0]?.startTime, listed: window.listed };
}"""
WATCH = """() => {
  const look = () => {
    if (document.querySelectorAll(".runs .run").length < 20) setTimeout(look, 5);
    else requestAnimationFrame(() => { window.listed ??= performance.now(); });
  };
  look();
}"""


@pytest.mark.alone
@pytest.mark.faults
def test_ten_thousand_runs_are_listed_as_quickly_as_thirty(
    page: Page, serve: Callable[[Path], Server], tmp_path: Path, measured: Measured, model_path: Path
) -> None:
    """What gradio needs to start is in both times, so that the difference is what the runs cost."""
    page.add_init_script(f"({WATCH})()")
    urls, ids = {}, []
    for count in (30, 10_000):
        settings = replace(read_settings(), home=tmp_path / str(count))
        ids = many_runs(settings.jobs, count)
        measured.tell(settings.home)
        link_model(model_path, settings.home)
        RunBook(settings, Summaries()).rows()
        urls[count] = serve(settings.home).url
        page.goto(urls[count])  # fills the caches of the browser: the scripts are not what is measured
        page.wait_for_function("window.listed")
    found: dict[int, list[dict[str, float]]] = {30: [], 10_000: []}
    for _ in range(5):
        for count, url in urls.items():
            page.goto("about:blank")
            page.goto(url)
            page.wait_for_function("window.listed")
            found[count].append(page.evaluate(PAINTED))
            page.wait_for_timeout(1000)
    middle = {
        count: {name: median(one[name] for one in each) for name in ("paint", "asked", "listed")}
        for count, each in found.items()
    }
    for count, one in middle.items():
        print(
            "\n{} runs: first paint {paint:.0f} ms; asked for at {asked:.0f}, shown at {listed:.0f} ms".format(
                count, **one
            )
        )
    assert middle[10_000]["paint"] <= 1000
    assert middle[10_000]["listed"] - middle[30]["listed"] <= 500
    expect(page.locator(".run").first).to_contain_text("run-9999")
    # The last of them opens as quickly as any.
    page.evaluate("id => window.studio.select(id)", ids[-1])
    expect(page.locator("[data-part=name]")).to_have_text("run-0")


@pytest.mark.faults
def test_many_who_look_at_once_get_the_same(settings: Settings) -> None:
    many_runs(settings.jobs, 2000)
    book = RunBook(settings, Summaries())
    counts: list[int] = []

    def look() -> None:
        counts.append(len(everything(book.changes)[0]))

    crowd = [threading.Thread(target=look) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert counts == [2000] * 8
