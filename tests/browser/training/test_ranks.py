"""A run on several devices: a row for each, and a choice of whose log is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.made import look, open_tab, serious

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

    MakeRun = Callable[..., FakeRun]

pytestmark = pytest.mark.long


def tell(run: FakeRun, *ranks: dict[str, Any]) -> None:
    run.write("ranks", step=run.step, ranks=list(ranks))


def logs(run: FakeRun) -> None:
    run.job.log_path.write_text("the first rank begins\n")
    (run.job.path / "ranks").mkdir()
    (run.job.path / "ranks" / "rank-1.log").write_text("the second rank begins\n<b>not bold</b>\n")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_gpus_have_a_row_each(page: Page, server: Server, fake_run: MakeRun, scheme: str, width: int) -> None:
    look(page, scheme, width)
    run = fake_run("two-gpus")
    logs(run)
    run.train(5)
    tell(run, {"tokens_per_second": 410.0, "memory": 61.2, "of": 85.5, "busy": 0.97},
         {"tokens_per_second": 205.0, "memory": 60.9, "of": 85.5, "busy": None})  # fmt: skip
    open_tab(page, server.url, "training", run.job.id)
    card = page.locator("[data-part=ranks]")
    expect(card.locator("[data-part=ranks-about]")).to_contain_text("2 GPUs")
    rows = card.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("410")
    expect(rows.nth(0)).to_contain_text("61.2 of 85.5 GB")
    expect(rows.nth(0)).to_contain_text("97 %")
    expect(rows.nth(1).locator("[role=img]").first).to_have_attribute("aria-label", "50 % of the fastest")
    expect(rows.nth(1).locator("td").nth(2)).to_have_text("–")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page) == []

    lines, whose = page.locator("[data-part=lines]"), page.get_by_label("Log of", exact=True)
    expect(lines).to_contain_text("the first rank begins")
    card.get_by_role("button", name="Show the log of rank 1").click()
    expect(lines).to_have_text("the second rank begins\n<b>not bold</b>\n")
    expect(whose).to_have_value("1")
    expect(page.locator("[data-part=log-link]")).to_have_attribute("href", f"/api/jobs/{run.job.id}/files/rank-1.log")
    whose.select_option("0")
    expect(lines).to_contain_text("the first rank begins")
    expect(lines).not_to_contain_text("second")


def test_a_run_on_a_processor_and_one_that_is_alone(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("two-processes")
    logs(run)
    run.train(3)
    tell(run, *({"tokens_per_second": 90.5, "memory": 1.21, "of": None, "busy": None} for _ in range(2)))
    run.finish("completed")
    open_tab(page, server.url, "training", run.job.id)
    card = page.locator("[data-part=ranks]")
    expect(card.locator("[data-part=ranks-about]")).to_contain_text("2 processes")
    expect(card.locator("tbody tr").first).to_contain_text("1.21 GB")
    expect(card.get_by_role("columnheader", name="Busy")).to_have_count(0)
    page.get_by_label("Log of", exact=True).select_option("1")  # also of a run that is over
    expect(page.locator("[data-part=lines]")).to_contain_text("the second rank begins")

    alone = fake_run("alone")
    alone.job.log_path.write_text("only one\n")
    alone.train(3)
    page.goto("about:blank")  # the address of another job alone does not load the page anew
    open_tab(page, server.url, "training", alone.job.id)
    expect(page.locator("[data-part=lines]")).to_contain_text("only one")
    expect(card).to_be_hidden()
    expect(page.get_by_label("Log of", exact=True)).to_be_hidden()
