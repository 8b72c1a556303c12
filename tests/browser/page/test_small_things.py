"""Small things on which people stumbled: each as they did it."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import CDPSession, Page, expect

from tests.browser.made import look, serious
from tests.browser.made import open_tab as open_job
from tests.browser.setup.test_setup_tabs import PLANNED, open_tab, planned, upload

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

pytestmark = pytest.mark.long


def test_advanced_settings_are_grouped_and_help_leads_to_the_docs(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    page.locator("#tab-method button.fold").last.click()
    titles = page.locator("#settings-advanced h4")
    expect(titles).to_have_text(
        ["Steps and schedule", "Speed and memory", "Optimizer", "Validation", "Checkpoints", "Record"]
    )
    link = page.locator("#f-training-learning_rate a")
    expect(link).to_have_text("docs/methods.md")
    with page.context.expect_page() as opened:
        link.click()
    docs = opened.value
    expect(docs.get_by_role("heading", level=1)).to_be_visible()
    expect(docs.locator("table").first).to_be_visible()
    assert serious(docs) == []
    docs.close()


def test_a_chart_is_saved_as_image_and_numbers(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    run = fake_run("saved")
    run.train(12)
    open_job(page, server.url, "training", run.job.id)
    chart = page.locator("#monitor section.chart").filter(has=page.locator('[data-chart="loss"]'))
    page.wait_for_function("document.querySelector('#monitor [data-chart=loss]').data?.[0].x.length === 12")
    saved = {}
    for word in ("PNG", "SVG", "CSV"):
        chart.locator("summary").click()
        with page.expect_download() as got:
            chart.get_by_role("button", name=f"{word} of", exact=False).click()
        assert got.value.suggested_filename == f"saved-loss.{word.lower()}"
        saved[word] = Path(got.value.path()).read_bytes()
    assert saved["PNG"].startswith(b"\x89PNG") and b"<svg" in saved["SVG"][:400]
    rows = list(csv.DictReader(saved["CSV"].decode().splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 13)]
    assert float(rows[3]["saved loss"]) == pytest.approx(0.5)
    validated = {row["step"]: float(row["saved eval_loss"]) for row in rows if row["saved eval_loss"]}
    assert validated == pytest.approx({"5": 0.44, "10": 0.22})


def test_the_last_point_of_a_chart_is_whole(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    """A validation at the last step lies on the edge of the chart, which used to cut it in half."""
    run = fake_run("whole")
    run.train(40)
    open_job(page, server.url, "training", run.job.id)
    marks = page.locator("#monitor [data-chart=loss] .scatterlayer .points path")
    expect(marks).to_have_count(8)
    last = marks.last
    assert last.evaluate(
        "node => { while (node && !node.getAttribute('clip-path')) node = node.parentElement; return !node }"
    )
    box, chart = last.bounding_box(), page.locator("#monitor [data-chart=loss] svg.main-svg").first.bounding_box()
    assert box and chart and box["x"] + box["width"] <= chart["x"] + chart["width"]


def test_columns_of_no_method_are_mapped_by_drop_downs(page: Page, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "a-table-with-a-rather-long-name.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out)
        lines.writerow(("wording", "bucket", "when"))
        lines.writerows((f"The pump {n} leaks", "plumbing", f"2026-01-{n:02}") for n in range(1, 31))
    open_tab(page, server, "data")
    upload(page, "#data-upload", file)
    planned(page, "plan.errors.length")
    columns = page.locator("#f-data-train .columns")
    expect(columns.locator("tbody tr")).to_have_count(3)
    expect(columns).to_contain_text("The pump 3 leaks")
    columns.get_by_label("Column of Prompt").select_option("wording")
    columns.get_by_label("Column of Completion").select_option("bucket")
    planned(page, "!plan.errors.length && plan.line.includes('steps')")
    expect(page.locator(".row-body")).to_contain_text("The pump 1 leaks")
    expect(page.locator(".data-state")).to_have_text("ready for SFT")
    page.get_by_role("group", name="View").get_by_role("button", name="Raw").click()
    expect(page.locator(".row-body pre.raw")).to_contain_text("2026-01-01")
    for scheme, width in (("light", 1440), ("dark", 390)):
        look(page, scheme, width)
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        table = page.get_by_role("table", name="Files").bounding_box()
        card = page.locator(".card-block:has(#f-data-train)").bounding_box()
        assert table and card and table["x"] + table["width"] <= card["x"] + card["width"], "it stands out of its card"


def test_the_strip_of_tabs_says_that_there_is_more(page: Page, server: Server) -> None:
    look(page, "light", 390)
    page.goto(f"{server.url}#tab=model")
    strip = page.locator("#tabs > .tab-wrapper")
    expect(strip).to_have_class(re.compile(r"\bmore\b"))
    page.locator("#tab-export-button").click()
    expect(strip).not_to_have_class(re.compile(r"\bmore\b"))
    look(page, "light", 1440)
    expect(strip).not_to_have_class(re.compile(r"\bmore\b"))


def test_the_frame_is_there_before_gradio(page: Page, server: Server) -> None:
    seen = "() => { if (document.querySelector('.shell')) window.hadShell = true }"
    page.add_init_script(f"new MutationObserver({seen}).observe(document, {{ childList: true, subtree: true }})")
    page.goto(server.url)
    expect(page.locator("#tab-model-button")).to_be_visible()
    expect(page.locator(".shell")).to_have_count(0)
    assert page.evaluate("window.hadShell") is True


def test_an_open_page_leaves_the_processor_to_the_training(
    page: Page, server: Server, fake_run: Callable[..., FakeRun]
) -> None:
    """A dot that pulsed had the page drawn 60 times a second, at the cost of a seventh of a training's speed."""
    page.emulate_media(reduced_motion="no-preference")
    run = fake_run("running")
    run.phase("loading model", 0, None)
    open_job(page, server.url, "training", run.job.id)
    expect(page.locator("#run-list .dot.run-ing")).to_be_visible()
    for _ in range(2):
        page.wait_for_timeout(3000)  # what is drawn once
        chrome = page.context.new_cdp_session(page)
        chrome.send("Performance.enable")
        before = _drawn(chrome)
        page.wait_for_timeout(3000)
        assert _drawn(chrome) - before < 60
        run.train(3)


def _drawn(chrome: CDPSession) -> float:
    values = {one["name"]: one["value"] for one in chrome.send("Performance.getMetrics")["metrics"]}
    return float(values["RecalcStyleCount"])


HELD = """() => {
  const own = window.requestAnimationFrame.bind(window), waiting = [];
  window.requestAnimationFrame = (call) => (window.held ? waiting.push(call) : own(call));
  window.release = () => { window.held = false; waiting.splice(0).forEach(own); };
}"""


@pytest.mark.parametrize(
    ("tab", "field"), [("data", "#data-path :is(input, textarea)"), ("chat", "#chat-message textarea")]
)
def test_what_is_typed_before_a_tab_is_settled_stays(page: Page, server: Server, tab: str, field: str) -> None:
    """gradio waits for a frame, and then puts the values into a new tab's fields that it was built with."""
    page.add_init_script(f"({HELD})()")
    page.goto(f"{server.url}#tab=model")
    page.wait_for_function(PLANNED, timeout=120_000)
    page.evaluate("held = true")
    page.evaluate(f"document.querySelector('#tab-{tab}-button').click()")
    there = f"!!document.querySelector('{field}')?.offsetParent"
    until = time.monotonic() + 60
    while not page.evaluate(there):  # what Playwright waits for comes with a frame
        assert time.monotonic() < until
        time.sleep(0.05)
    page.evaluate(f"document.querySelector('{field}').focus()")
    page.keyboard.insert_text("half a ")
    page.keyboard.insert_text("line")
    page.evaluate("release()")
    page.wait_for_timeout(1500)
    expect(page.locator(field).first).to_have_value("half a line")


def test_a_click_may_put_back_what_stood_there_before(page: Page, server: Server) -> None:
    open_tab(page, server, "model")
    path = page.locator("#f-model-path :is(input, textarea)").first
    before = path.input_value()
    path.fill("someone/some-model")
    page.locator("#model-cards label", has_text="SmolLM2").click()
    expect(path).to_have_value(before)
    page.wait_for_timeout(500)  # in which a text would be put back that was lost
    expect(path).to_have_value(before)
