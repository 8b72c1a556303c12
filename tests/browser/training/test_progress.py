"""One bar for the whole job, and the title and icon of the page: what a person sees of how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

BAR = "[data-part=bar]"


@pytest.mark.long
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


def below(page: Page, upper: str, lower: str) -> bool:
    """Whether one piece of the page stands below another one."""
    top, bottom = page.locator(upper).bounding_box(), page.locator(lower).bounding_box()
    return top is not None and bottom is not None and top["y"] + top["height"] <= bottom["y"] + 1


@pytest.mark.long
def test_what_comes_first_while_a_run_starts_and_when_it_is_done(
    page: Page, server: Server, fake_run: Callable[..., FakeRun]
) -> None:
    run = fake_run("begun")
    run.write("begin")
    run.phase("loading libraries", 0, None, state="begin")
    run.log("10:00:00  loading libraries")
    page.goto(server.url)
    expect(page.locator("#monitor [data-part=training]")).to_have_class("skeleton")
    expect(page.locator("#monitor .tiles")).to_be_visible()
    expect(page.locator("#evaluation")).to_be_hidden()
    expect(page.locator("[data-part=next]")).to_be_hidden()
    order = ["#monitor [data-part=bar]", "#monitor .tiles", "#monitor .charts", "[data-part=log-card]", "#keep .card"]
    assert all(below(page, *pair) for pair in pairwise(order))
    expect(page.get_by_role("button", name="Delete job", exact=True)).to_be_hidden()
    run.train(40)
    expect(page.locator("#monitor [data-part=training]")).not_to_have_class("skeleton")
    run.job.model.mkdir()
    (run.job.model / "adapter_config.json").write_text("{}")
    run.finish()
    steps = page.locator("[data-part=next]")
    expect(steps.get_by_role("button")).to_have_text(
        [
            re.compile("Evaluate.*100 rows in about"),
            re.compile("Chat.*of memory"),
            re.compile("Export.*q4_k_m, about 104 MB"),
        ]
    )
    assert below(page, "[data-part=next]", "#monitor .tiles")
    expect(page.locator("#evaluation")).to_be_visible()
    steps.get_by_role("button").nth(0).click()
    expect(page.locator("#evaluate-start")).to_be_in_viewport()
    for place, tab in ((1, "Chat"), (2, "Export")):
        steps.get_by_role("button").nth(place).click()
        expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
        page.get_by_role("tab", name="Training", exact=True).click()


@pytest.mark.long
def test_an_empty_studio_says_how_long_the_demo_takes_here(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.locator("#training-empty")).to_contain_text(re.compile(r"in about \d+ (s|min) on this machine"))
