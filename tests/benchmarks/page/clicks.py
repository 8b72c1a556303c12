"""What a person waits for in the page: its first content, and after a click what the click is for.

Timed inside the browser, from the click to the first frame in which the effect is there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.page.start import served
from tests.conftest import CHROMIUM_ARGUMENTS

TIMES = 7
TABS = ("data", "method", "training", "chat", "export", "model")
# The clock of the browser around one click: what is clicked, and what is there then.
_CLICK = """([target, effect]) => new Promise((done, fail) => {
  const there = new Function("seen", "was", `return ${effect}`);
  const seen = (selector) => (document.querySelector(selector)?.getClientRects().length || 0) > 0;
  const was = document.body.classList.contains("dark");
  const button = [...document.querySelectorAll(target)].find((one) => one.getClientRects().length);
  if (!button) return fail(new Error(`nothing to click: ${target}`));
  const began = performance.now();
  button.click();
  const look = () => there(seen, was) ? done(performance.now() - began)
    : performance.now() - began > 20000 ? fail(new Error(`no effect: ${target}`)) : requestAnimationFrame(look);
  requestAnimationFrame(look);
})"""


@dataclass(frozen=True)
class Waits:
    """What the page of a home with a finished run takes.

    Attributes:
        paint: seconds to the first contentful paint, median of `TIMES` loads.
        clicks: milliseconds from each click to its effect, medians of `TIMES`.
    """

    paint: float
    clicks: dict[str, float]


def waits(home: Path) -> Waits:
    """Open the page of a home whose newest training has ended, and click through it."""
    with served(home) as (address, _, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        paints = []
        for _ in range(TIMES):
            page.goto("about:blank")
            page.goto(f"{address}#tab=model")
            page.wait_for_function("window.studioForm?.latest.plan?.memory", timeout=120_000)
            paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        found: dict[str, list[float]] = {}
        for _ in range(TIMES):
            _round(page, found)
        browser.close()
    return Waits(median(paints) / 1000, {what: median(times) for what, times in found.items()})


def _round(page: Page, found: dict[str, list[float]]) -> None:
    def click(what: str, target: str, effect: str) -> None:
        found.setdefault(what, []).append(page.evaluate(_CLICK, [target, effect]))
        page.wait_for_timeout(700)  # what the click set going besides must not be in the next one's time

    for tab in TABS:
        click(f"tab {tab.title()}", f"#tab-{tab}-button", f"seen('#tab-{tab}')")
        if tab == "data":
            click("row: raw", ".row-view [data-view=raw]", "seen('.row-body pre.raw')")
            click("row: tokens", ".row-view [data-view=tokens]", "seen('.row-body .tokens')")
    click("run in the list", "#run-list .run", "seen('#monitor [data-chart=loss] .scatterlayer .js-line')")
    click("draft in the list", ".draft-entry", "['model', 'data', 'method'].some((tab) => seen('#tab-' + tab))")
    click("dark", ".theme-toggle", "document.body.classList.contains('dark') !== was")
    click("light", ".theme-toggle", "document.body.classList.contains('dark') !== was")
