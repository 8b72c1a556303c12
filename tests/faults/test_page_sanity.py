"""The page over a run whose clock jumped and whose log is damaged, and over one that is very long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from studio.jobs import JobFolder
from studio.jobs.store.events import UNREADABLE
from studio.jobs.store.state import write_state
from tests.faults.homes import long_run, write_step
from tests.jobs.store.test_garbage import GARBAGE

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

HOUR = 3600.0
# "−" is how the page writes a negative number; a learning rate or a loss may have one in its exponent.
INSANE = re.compile(r"NaN|Infinity|undefined|\[object|−\d+ (s|min|h|d)\b|-\d+ (s|min|h|d)\b")
POINTS = "name => document.querySelector(`[data-chart=${name}]`)?.data?.[name === 'loss' ? 1 : 0].x.length || 0"


def open_run(page: Page, server: Server, job: JobFolder) -> None:
    page.goto(f"{server.url}#tab=training&job={job.id}")
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")


@pytest.mark.long
def test_jumping_clock_and_garbage_leave_the_page_sane(
    page: Page, server: Server, fake_run: Callable[..., FakeRun]
) -> None:
    run = fake_run("damaged")
    run.phase("tokenizing", 20, 500, "examples")
    run.train(4)
    lines = run.job.events_path.read_bytes().splitlines(keepends=True)
    jumps = (0, 48 * HOUR, -48 * HOUR, -1e9, 0.25)
    moved = [
        re.sub(rb'"time": [\d.]+', b'"time": %.3f' % (time.time() + jumps[number % len(jumps)]), line)
        for number, line in enumerate(lines)
    ]
    content = b"".join(part for line in moved for part in (line, GARBAGE[0] + b"\n"))
    run.job.events_path.write_bytes(content + b"".join(line + b"\n" for line in GARBAGE))
    run.events.close()
    run.__post_init__()  # a writer that goes on from there
    open_run(page, server, run.job)
    page.wait_for_function(f"() => ({POINTS})('loss') === 4")
    run.train(3)
    page.wait_for_function(f"() => ({POINTS})('loss') === 7")
    expect(page.locator("[data-part=notices] .notice")).to_have_count(1)
    expect(page.locator("[data-part=notices]")).to_contain_text(UNREADABLE[1:40])
    expect(page.locator("[data-part=count]")).to_have_text("step 7 of 40")
    for axis in ("time", "tokens", "step"):
        page.locator(f"[data-x={axis}]").click()
        page.wait_for_timeout(200)
        xs = page.evaluate("document.querySelector('[data-chart=loss]').data[1].x")
        assert len(xs) == 7 and all(isinstance(x, int | float) for x in xs) and xs == sorted(xs)
    said = page.locator("#monitor").inner_text() + page.locator(".runs").inner_text()
    assert not INSANE.search(said), said
    # The end lies before the start, by the clock.
    state = run.job.state()
    run.finish("failed", "the clock was moved back")
    write_state(run.job.state_path, run.job.state().with_(finished=(state.started or 0) - 48 * HOUR))
    expect(page.locator("[data-part=pill]")).to_have_text("Failed")
    page.wait_for_timeout(1500)
    said = page.locator("#monitor").inner_text() + page.locator(".runs").inner_text()
    assert not INSANE.search(said), said


def measured(page: Page, server: Server, job: JobFolder, steps: int) -> dict[str, Any]:
    """Milliseconds from choosing a run to its first curve and to its whole one, and what an update costs."""
    page.goto(f"{server.url}#tab=training")
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")
    page.wait_for_function("window.Plotly && window.studio.state.loaded")
    page.evaluate(
        """id => {
          window.asked = performance.now(); window.first = null;
          const look = () => {
            const drawn = document.querySelector("[data-chart=loss]")?.data?.[1]?.x.length || 0;
            if (!drawn || document.querySelector("[data-part=training]").hidden) return setTimeout(look, 5);
            requestAnimationFrame(() => { window.first = performance.now(); });
          };
          window.studio.select(id);
          look();
        }""",
        job.id,
    )
    page.wait_for_function("window.first")
    page.wait_for_function(
        "steps => window.studio.monitor.reader?.series.loss?.y.length >= steps", arg=steps, timeout=120_000
    )
    whole = page.evaluate("performance.now() - window.asked")
    # More updates, each of one new step.
    page.evaluate("window.studio.monitor.UPDATES.length = 0; performance.clearResourceTimings()")
    with job.events_path.open("a") as file:
        for step in range(steps + 1, steps + 5):
            write_step(file, step, 2 * steps)
            file.flush()
            page.wait_for_function(
                "steps => window.studio.monitor.reader.series.loss.y.length >= steps", arg=step, timeout=30_000
            )
    updates = page.evaluate("window.studio.monitor.UPDATES")
    sizes = page.evaluate(
        "() => performance.getEntriesByType('resource').filter((one) => one.name.includes('/events?'))"
        ".slice(-5).map((one) => one.decodedBodySize)"
    )
    return {
        "first": page.evaluate("window.first - window.asked"),
        "whole": whole,
        "draw": sorted(draw for draw, _ in updates)[len(updates) // 2],
        "read": sorted(read for _, read in updates)[len(updates) // 2],
        "bytes": max(sizes),
    }


def compare(page: Page, server: Server, made: list[JobFolder], many: int, log_bytes: int, first: float) -> None:
    few = 500
    jobs = []
    for steps, size in ((few, 1000), (many, log_bytes)):
        job = long_run(server.home / "made", steps, size, "running")
        (server.home / "jobs").mkdir(exist_ok=True)
        jobs.append(JobFolder(job.path.rename(server.home / "jobs" / job.id)))
        made.append(jobs[-1])
    short, long = (measured(page, server, job, steps) for job, steps in zip(jobs, (few, many), strict=True))
    print(f"\n{few} steps {short}\n{many} steps, log of {log_bytes / 1e6:.0f} MB {long}")
    expect(page.locator("[data-part=lines]")).to_contain_text("the last line")
    assert long["first"] <= first
    assert long["bytes"] <= 1.5 * short["bytes"]
    assert long["read"] <= 2 * short["read"] + 100
    assert long["draw"] <= 3 * short["draw"] + 150  # never more than 4,000 points are drawn


@pytest.fixture
def made(leftovers: list[Path]) -> Any:
    jobs: list[JobFolder] = []
    yield jobs
    leftovers += [job.path for job in jobs]


@pytest.mark.alone
@pytest.mark.faults
def test_a_long_run_opens_and_updates_like_a_short_one(page: Page, server: Server, made: list[JobFolder]) -> None:
    compare(page, server, made, 8_000, 20_000_000, first=3000)  # machines of everyday tests are busy


@pytest.mark.alone
@pytest.mark.faults
def test_a_hundred_thousand_steps_and_a_gigabyte_of_log(page: Page, server: Server, made: list[JobFolder]) -> None:
    compare(page, server, made, 100_000, 1_000_000_000, first=1000)
