"""One bar for the whole job, and the title and icon of the page: what a person sees of how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

BAR = "[data-part=bar]"


def test_the_bar_goes_through_all_phases_and_never_back(
    page: Page, server: Server, fake_run: Callable[..., FakeRun]
) -> None:
    run, shown = fake_run("steady"), []

    def at(percent: int) -> None:
        expect(page.locator(BAR)).to_have_attribute("aria-valuenow", str(percent))
        expect(page).to_have_title(f"{percent} % · steady")
        shown.append(percent)

    run.write("begin")
    run.phase("loading libraries", 0, None, state="begin")
    page.goto(server.url)
    expect(page.locator("[data-part=count]")).to_have_text("loading libraries")
    expect(page.locator(BAR)).to_have_class("bar unknown")
    seconds = {"loading model": 50_000, "training": 500_000, "validating": 400_000, "saving": 50_000}
    run.write("outline", seconds=seconds, validations=4)
    run.phase("loading model", 0, None, state="end")
    at(5)
    run.phase("validating", 30, 40, "batches")  # three quarters of one of four
    expect(page.locator("[data-part=count]")).to_contain_text("validating: 30 of 40 batches")
    at(12)
    run.phase("validating", 40, 40, "batches", state="end")
    at(15)
    run.train(20)  # half of the steps
    at(40)
    run.phase("validating", 0, 40, "batches")
    at(40)
    expect(page.locator("[data-part=count]")).to_have_text("step 20 of 40, validating: 0 of 40 batches")
    expect(page.locator("[data-part=left]")).to_contain_text("left")
    assert shown == sorted(shown)
    ring = "() => document.querySelector('link[rel=icon]').href"
    assert "svg" in page.evaluate(ring) and "stroke-dasharray" in page.evaluate(ring)
    run.finish()
    expect(page.locator(BAR)).to_have_attribute("aria-valuenow", "100")
    expect(page).to_have_title("Done · steady")
    page.reload()
    expect(page.locator("[data-part=pill]")).to_have_text("Done")
    expect(page).to_have_title("Finetune Studio")
