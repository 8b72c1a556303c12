"""Training at OpenAI in a real browser, against the local service: check, price, start, curves, pause, resume."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.made import as_text, open_tab, serious
from tests.support.servers.openaiserver import OpenAI, serve_openai

if TYPE_CHECKING:
    from tests.browser.conftest import Server


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    """The service, where the page that starts next finds it."""
    found = OpenAI(pace=0.4)
    with serve_openai(found) as address:
        for name, value in {
            "OPENAI_API_KEY": "sk-ada", "OPENAI_BASE_URL": address, "STUDIO_OPENAI_POLL": "0.3",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def priced(page: Page, service: OpenAI, serve: Callable[[Path], Server], tmp_path: Path) -> Page:
    """The Model tab with checked rows, whose price stands on the button."""
    open_tab(page, serve(tmp_path / "home").url, "model", "")
    page.get_by_role("button", name=re.compile("^Train at OpenAI")).click()
    rows = page.locator("#openai-data input")
    rows.fill("demo/validation.jsonl")
    rows.press("Enter")
    page.locator("#openai-n_epochs textarea, #openai-n_epochs input").fill("1")
    page.get_by_role("button", name="Check and show the price").click()
    expect(page.locator("#openai-start")).to_be_visible()
    return page


@pytest.mark.long
def test_rows_are_priced_sent_and_followed(priced: Page, service: OpenAI) -> None:
    page = priced
    said = page.locator("#openai-said")
    expect(said).to_contain_text("36 rows and 4 for validation for gpt-4o-mini-2024-07-18: about")
    expect(said).to_contain_text("Prices as of 2026-05-07")
    assert service.requests == [] and not serious(page)
    page.get_by_role("button", name="Send 40 rows and start (about $0.01)").click()
    expect(said).to_contain_text("is queued: it is followed in the Training tab")
    page.get_by_role("tab", name="Training", exact=True).click()
    expect(page.locator('[data-part="about"]')).to_contain_text("OpenAI · gpt-4o-mini-2024-07-18")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator('[data-part="count"]')).to_contain_text("paused at the service")
    service.pace = 0.005
    page.locator(".monitor").get_by_role("button", name="Resume", exact=True).click()
    expect(page.locator('[data-part="pill"]')).to_have_text("Done")
    expect(page.locator('[data-tile="loss"] b')).to_have_text(re.compile(r"0\.15"))
    expect(page.locator('[data-tile="learning_rate"]')).to_be_hidden()
    expect(page.locator('section[aria-label="Token accuracy"]')).to_be_visible()
    assert len(service.jobs) == 1 and len(service.uploads()) == 2
    as_text(page)
    assert not serious(page)


@pytest.mark.long
def test_a_change_takes_the_price_away_and_a_cancel_reaches_the_service(priced: Page, service: OpenAI) -> None:
    page = priced
    page.locator("#openai-n_epochs textarea, #openai-n_epochs input").fill("20")
    expect(page.locator("#openai-start")).to_be_hidden()
    page.get_by_role("button", name="Check and show the price").click()
    page.get_by_role("button", name=re.compile("^Send 40 rows")).click()
    page.get_by_role("tab", name="Training", exact=True).click()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    page.locator('[data-part="stop"]').click()
    expect(page.locator('[data-part="ask-text"]')).to_contain_text("cancelled at OpenAI")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator('[data-part="pill"]')).to_have_text("Stopped")
    (there,) = service.jobs.values()
    assert there.status == "cancelled"


@pytest.mark.long
def test_a_validation_file_and_the_options_of_a_method_are_sent(priced: Page, service: OpenAI) -> None:
    page = priced
    service.pace = 0.005
    page.get_by_role("button", name=re.compile("^More options")).click()
    expect(page.locator("#openai-beta")).to_be_hidden()
    rows = page.locator("#openai-validation input")
    rows.fill("demo/test.jsonl")
    rows.press("Enter")
    page.locator("#openai-validation_share textarea, #openai-validation_share input").fill("0")
    page.locator("#openai-batch_size textarea, #openai-batch_size input").fill("4")
    page.locator("#openai-seed textarea, #openai-seed input").fill("7")
    expect(page.locator("#openai-start")).to_be_hidden()
    page.get_by_role("button", name="Check and show the price").click()
    page.get_by_role("button", name=re.compile("^Send 160 rows and start")).click()
    page.get_by_role("tab", name="Training", exact=True).click()
    expect(page.locator('[data-part="pill"]')).to_have_text("Done")
    (there,) = service.jobs.values()
    assert there.body["seed"] == 7 and there.hyperparameters["batch_size"] == 4 and there.body["validation_file"]
    page.get_by_role("tab", name="Model", exact=True).click()
    method = page.locator("#openai-method input")
    method.click()
    page.get_by_role("option", name="dpo", exact=True).click()
    expect(page.locator("#openai-beta")).to_be_visible()


@pytest.mark.long
def test_a_job_that_was_started_elsewhere_is_followed(priced: Page, service: OpenAI, console: list[str]) -> None:
    page = priced
    service.pace = 0.005
    row = {"messages": [{"role": "user", "content": "Ping?"}, {"role": "assistant", "content": "Pong."}]}
    rows = service.add_file("rows.jsonl", "fine-tune", 12 * (json.dumps(row) + "\n").encode())
    status, there = service.start({"model": "gpt-4o-mini-2024-07-18", "training_file": rows["id"]})
    assert status == 200
    earlier = page.locator("#openai-adopt textarea, #openai-adopt input")
    earlier.fill("ftjob-none")
    page.get_by_role("button", name="Follow it here").click()
    expect(page.get_by_text(re.compile("ftjob-none")).last).to_be_visible()
    console.clear()  # the refusal is an answer of status 500
    earlier.fill(there["id"])
    page.get_by_role("button", name="Follow it here").click()
    expect(page.locator("#openai-said")).to_contain_text("is followed in the Training tab")
    page.get_by_role("tab", name="Training", exact=True).click()
    expect(page.locator('[data-part="pill"]')).to_have_text("Done")
