"""A person's first ten minutes: own CSV with foreign column names → trained → evaluated → a proven GGUF file.

Every click and every typed word is counted; nothing is looked up.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.jobs import list_jobs
from tests.browser.setup.test_setup_tabs import planned

if TYPE_CHECKING:
    from tests.browser.conftest import Server

CLICKS, WORDS = 12, 2
TEAMS = {"leaks": "plumbing", "has no power": "electrics", "is too loud": "mechanics"}
PLACES = ("The pump", "The heater", "Our boiler", "The fan", "A valve", "The dryer")


@dataclass
class Person:
    """Who clicks, chooses from lists and types, and how often."""

    page: Page
    clicks: int = 0
    words: int = 0

    def click(self, target: Locator) -> None:
        self.clicks += 1
        target.click()

    def choose(self, target: Locator, word: str) -> None:
        """One click opens a list, one takes an entry."""
        self.clicks += 2
        target.select_option(word)

    def pick(self, target: Locator, file: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.click(target)
        chooser.value.set_files(file)


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """300 tickets of a help desk with the team that took them, in columns that no method knows."""
    file = tmp_path / "tickets of our help desk.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out)
        lines.writerow(("number", "wording", "taken by"))
        for number in range(300):
            what, team = list(TEAMS.items())[number % 3]
            lines.writerow((number, f"{PLACES[number // 3 % 6]} {what}, room {100 + number}.", team))
    return file


@pytest.mark.long
def test_an_own_table_becomes_a_proven_file(page: Page, server: Server, tickets: Path) -> None:
    person = Person(page)
    page.goto(server.url)
    person.click(page.get_by_role("tab", name="Data", exact=True))
    person.pick(page.locator("#data-upload"), tickets)
    columns = page.locator("#f-data-train .columns")
    person.choose(columns.get_by_label("Column of Prompt"), "wording")
    person.choose(columns.get_by_label("Column of Completion"), "taken by")
    planned(page, "!plan.errors.length && plan.line.includes('steps')")
    expect(page.locator("#tab-data .data-state")).to_have_text("ready for SFT")
    person.click(page.locator("#tab-data .plan-start"))
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=400_000)

    steps = page.locator("[data-part=next]").get_by_role("button")
    person.click(steps.nth(0))
    person.click(page.locator("#evaluate-start"))
    expect(page.locator("#evaluation-view .pill").first).to_have_text("done", timeout=300_000)
    expect(page.locator(".score b")).to_have_count(2)  # the report is read a moment after the end is known
    before, after = (float(one.removesuffix(" %")) for one in page.locator(".score b").all_inner_texts())
    assert after > before, "the model has learned nothing of the tickets"

    person.click(steps.nth(2))
    person.click(page.get_by_role("button", name="Export to GGUF", exact=True))
    expect(page.locator(".export-card .pill", has_text="verified").first).to_be_visible(timeout=400_000)
    job = next(one for one in list_jobs(server.settings.jobs) if one.request.kind == "export")
    assert list(job.exports.glob("*.gguf"))
    assert person.clicks <= CLICKS and person.words <= WORDS
