"""Each tab and each selected job is an address: Back and Forward go through them and do not leave the studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server


def at(page: Page, tab: str, job: str) -> None:
    """The page shows this tab, and this job is selected, in the list and in the Training tab."""
    expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".run.on b")).to_have_text(job)
    expect(page.locator("#monitor [data-part=name]")).to_have_text(job)
    page.wait_for_timeout(620)  # what changes within 0.6 s is one step


@pytest.mark.long
def test_back_and_forward(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    for name in ("first", "second"):
        run = fake_run(name)
        run.train(3)
        run.finish()
    page.goto("about:blank")
    page.goto(server.url)
    at(page, "Training", "second")
    for tab in ("Data", "Chat"):
        page.get_by_role("tab", name=tab, exact=True).click()
        at(page, tab, "second")
    page.locator(".run", has_text="first").click()
    at(page, "Training", "first")
    for tab, job in (("Chat", "second"), ("Data", "second"), ("Training", "second")):
        page.go_back()
        at(page, tab, job)
    for tab, job in (("Data", "second"), ("Chat", "second")):
        page.go_forward()
        at(page, tab, job)
    page.go_forward()
    expect(page.locator(".run.on b")).to_have_text("first")
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    at(page, "Training", "first")
