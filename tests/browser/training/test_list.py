"""The list at the left: what belongs to a run stands under it, and opening the studio lands on a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.jobs.store.files import write_json

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server


@pytest.mark.long
def test_what_is_done_with_a_run_stands_under_it(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    run = fake_run("demo")
    run.train(5)
    run.finish()
    other = fake_run("zulu")
    other.train(3)
    other.finish()
    evaluation = fake_run("demo", "evaluate", {"run": run.job.id, "data": "demo/test.jsonl"})
    evaluation.finish("stopped")
    export = fake_run("demo", "export", {"run": run.job.id})
    page.goto(server.url)
    rows = page.locator(".runs li .run b")
    expect(rows).to_have_text(["demo", "Export", "Evaluation", "zulu"])
    expect(page.locator(".runs li.under .run b")).to_have_text(["Export", "Evaluation"])
    export.finish("stopped")
    page.locator(".run", has_text="zulu").click()
    expect(page.locator("#keep [data-keep=size]")).to_contain_text("kB")
    page.goto("about:blank")
    page.goto(server.url)
    expect(page.locator(".run.on b")).to_have_text("zulu")
    assert "tab=training" in page.url
    page.get_by_text("Filter and sort").click()
    page.get_by_label("Sort by").select_option("best")
    expect(page.locator(".runs li.under")).to_have_count(0)
    expect(page.locator(".run small", has_text="Evaluation")).to_have_count(1)


@pytest.mark.long
def test_a_click_shows_nothing_of_the_job_before(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    for name in ("first", "second"):
        run = fake_run(name)
        run.train(3)
        write_json(run.job.path / "big.json", {"text": name * (50_000 if name == "second" else 1)})
        run.finish()
    page.goto(server.url)
    size = page.locator("#keep [data-keep=size]")
    expect(size).to_contain_text("kB")
    big = size.inner_text()
    page.route("**/disk", lambda route: None)  # the answer never comes
    page.locator(".run", has_text="first").click()
    expect(page.locator("#monitor [data-part=name]")).to_have_text("first")
    expect(size).to_have_text("")
    assert big
