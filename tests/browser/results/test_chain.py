"""The whole chain as a newcomer clicks it, on the real model: train, evaluate, chat, export, chat with the file.

Every day three steps and three rows; the long one is the demo, which learns its task. In its middle the tab is closed
and the web process killed with SIGKILL; training must end normally and the page must show the whole curve.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from studio.jobs import JobFolder, list_jobs, read_events, wait
from tests.browser.conftest import Server
from tests.browser.made import longest_answer
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned

TRAINING_SECONDS = 1200  # not a goal, which benchmarks have: twelve minutes were seen on one core, in float32
ANSWER_MS = 120_000
POINTS = "count => document.querySelector('[data-chart=loss]')?.data?.some(trace => trace.x.length >= count)"


@pytest.mark.long
@pytest.mark.timeout(2700)
def test_the_demo_learns_its_task_and_is_taken_away(
    browser: Browser,
    page: Page,
    console: list[str],
    serve: Callable[[Path], Server],
    tmp_path_factory: pytest.TempPathFactory,
    clicked_runs: list[JobFolder],
) -> None:
    artifacts = tmp_path_factory.mktemp("chain")
    server = serve(artifacts / "home")

    # One press trains; the first phase is visible at once, before there is any number.
    page.goto(server.url)
    page.get_by_role("button", name="Start the demo", exact=True).click()
    expect(page.locator("[data-part=count]")).to_contain_text(
        re.compile("loading|preparing|reading|tokenizing|step"), timeout=60_000
    )
    expect(page.locator("[data-part=count]")).to_contain_text(re.compile(r"step \d+ of \d+"), timeout=180_000)
    page.wait_for_function(POINTS, arg=3, timeout=180_000)
    page.screenshot(path=artifacts / "training.png")
    address = page.url
    (job,) = list_jobs(server.settings.jobs)
    assert job.id in address

    # The tab is closed and the web process killed: the training does not notice.
    page.close()
    server.end(signal.SIGKILL)
    before = job.state()
    assert before.alive()
    time.sleep(3)
    server.start()
    after = job.state()
    assert (after.pid, after.process_start) == (before.pid, before.process_start)

    # No page is open meanwhile: drawing takes a quarter of a processor here, where no GPU draws.
    assert wait(job, seconds=TRAINING_SECONDS).status == "completed"
    clicked_runs.append(job)
    tab = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    tab.goto(address)
    events, _ = read_events(job.events_path)
    steps = [event["step"] for event in events if event["kind"] == "metric" and "loss" in event["values"]]
    assert steps == list(range(1, steps[-1] + 1))
    tab.wait_for_function(POINTS, arg=len(steps), timeout=60_000)
    expect(tab.locator("[data-part=pill]")).to_have_text("Done")
    tab.screenshot(path=artifacts / "trained.png")

    scores = evaluated(tab, "of 120 right")
    assert scores[0] < 5
    assert scores[-1] >= 97
    tab.screenshot(path=artifacts / "evaluated.png", full_page=True)
    asked(tab, "demo · tuned")
    order = json.loads(tab.locator("#chat-right .bubble-text").last.inner_text())
    assert (order["customer"], order["city"]) == ("Helen", "Melbourne")
    tab.screenshot(path=artifacts / "chat.png")
    exported(tab, server)
    tab.screenshot(path=artifacts / "exported.png")
    assert "customer" in json.loads(tab.locator("#chat-right .bubble-text").last.inner_text())
    merged(tab, server)
    tab.screenshot(path=artifacts / "merged.png")
    assert "customer" in json.loads(tab.locator("#chat-right .bubble-text").last.inner_text())
    tab.context.close()
    console.clear()  # the first tab was closed beside a request


def test_a_short_run_becomes_a_proven_file(page: Page, server: Server) -> None:
    open_tab(page, server, "data")
    fill(page, "data.validation", "0")  # a validation after each of so few steps takes most of the time
    page.get_by_role("tab", name="Method", exact=True).click()
    page.locator("#tab-method button.fold").last.click()
    fill(page, "training.max_steps", "3")
    fill(page, "training.batch_size", "2")
    planned(page, "plan.line.includes('3 steps') && !plan.errors.length")
    page.locator("#tab-method .plan-name").fill("three")
    page.locator("#tab-method .plan-start").click()
    expect(page.locator("[data-part=count]")).to_contain_text(re.compile(r"step \d+ of 3"), timeout=180_000)
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=300_000)
    page.wait_for_function(POINTS, arg=3, timeout=60_000)
    page.locator("#evaluate-limit input").fill("3")
    page.locator("#evaluate-limit input").press("Enter")
    scores = evaluated(page, "of 3 right")
    assert 0 <= scores[0] <= scores[-1] <= 100
    page.get_by_role("tab", name="Chat", exact=True).click()
    longest_answer(page, 8)  # a model that learned so little finds no end
    asked(page, "three · tuned")
    exported(page, server, "Q8_0")  # made in a tenth of Q4_K_M's time
    for job in list_jobs(server.settings.jobs):
        foretold(job)


def foretold(job: JobFolder) -> None:
    """What the bar of a job was divided by is what it did."""
    events, _ = read_events(job.events_path, 0, 10_000_000)
    outlines = [event["seconds"] for event in events if event["kind"] == "outline"]
    done = {event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"}
    assert outlines and {name for name, seconds in outlines[-1].items() if seconds} <= done, (job.id, outlines, done)


def evaluated(tab: Page, count: str) -> list[float]:
    """Press Evaluate and return the percentages before and after."""
    tab.get_by_role("button", name="Evaluate", exact=True).click()
    expect(tab.locator("#evaluation-view .pill").first).to_have_text("done", timeout=300_000)
    expect(tab.locator(".score b")).to_have_count(2)  # the report is read a moment after the end is known
    expect(tab.locator(".score em").last).to_contain_text(count)
    return [float(text.removesuffix(" %")) for text in tab.locator(".score b").all_inner_texts()]


def asked(tab: Page, tuned: str) -> None:
    """Ask base and tuned the same question in the Chat tab."""
    tab.get_by_role("tab", name="Chat", exact=True).click()
    expect(tab.locator("#chat-right-target input")).to_have_value(tuned)
    tab.locator("#chat-example-0").click()
    for side in ("left", "right"):
        expect(tab.locator(f"#chat-{side} .chat-speed")).to_contain_text("first token", timeout=ANSWER_MS)
        expect(tab.locator(f"#chat-{side} .chat-messages")).to_have_attribute("aria-busy", "false", timeout=ANSWER_MS)


def exported(tab: Page, server: Server, kind: str = "Q4_K_M") -> None:
    """One press exports; the file is proven, downloaded without a copy, and answers in the Chat tab."""
    tab.get_by_role("tab", name="Export", exact=True).click()
    if kind != "Q4_K_M":
        tab.locator("#export-types").get_by_label(kind).check()
        tab.locator("#export-types").get_by_label("Q4_K_M").uncheck()
    tab.get_by_role("button", name="Export to GGUF", exact=True).click()
    card = tab.locator(".export-card").first
    expect(card.locator(".pill", has_text="verified")).to_be_visible(timeout=400_000)
    expect(card.locator("tbody tr")).to_contain_text([kind])
    job = next(job for job in list_jobs(server.settings.jobs) if job.request.kind == "export")
    (file,) = job.exports.glob("*.gguf")
    (line,) = json.loads((job.report / "export.json").read_text(encoding="utf-8"))["files"]
    with urllib.request.urlopen(f"{server.url}api/jobs/{job.id}/files/{file.name}") as download:
        assert "attachment" in download.headers["Content-Disposition"]
        assert hashlib.sha256(download.read()).hexdigest() == line["sha256"]
    assert not list(server.home.rglob(f"tmp/**/{file.name}")), "the download made a copy"
    answered(tab, card, file.name, "GGUF")


def merged(tab: Page, server: Server) -> None:
    """The same run as one checkpoint in bfloat16: proven, and it answers in the Chat tab."""
    tab.get_by_role("tab", name="Export", exact=True).click()
    tab.get_by_role("radio", name="Merged checkpoint", exact=True).click()
    tab.get_by_role("button", name="Export checkpoint", exact=True).click()
    card = tab.locator(".export-card").first
    expect(card.get_by_role("heading")).to_contain_text("Merged checkpoint of")
    expect(card.locator(".pill", has_text="verified")).to_be_visible(timeout=400_000)
    job = next(job for job in list_jobs(server.settings.jobs) if job.request.config.get("to") == "merged")
    (line,) = json.loads((job.report / "export.json").read_text(encoding="utf-8"))["files"]
    assert (line["verdict"], line["prompt_ids_equal"]) == ("as trained", True)
    answered(tab, card, line["file"], "merged")


def answered(tab: Page, card: Locator, name: str, kind: str) -> None:
    """Open what was exported in the Chat tab, and ask it."""
    card.get_by_role("button", name=f"Chat with it: {name}", exact=True).first.click()
    expect(tab.locator("#chat-right-target input")).to_have_value(f"{name} · {kind}")
    tab.locator("#chat-example-0").click()
    expect(tab.locator("#chat-right .chat-messages")).to_have_attribute("aria-busy", "true")
    expect(tab.locator("#chat-right .chat-messages")).to_have_attribute("aria-busy", "false", timeout=ANSWER_MS)
    expect(tab.locator("#chat-right .bubble-text").last).not_to_be_empty()
