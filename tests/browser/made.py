"""Opening a tab of the page for one job, a screen of another size or colour, and what axe finds."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

PWNED = "() => window.pwned === undefined && document.querySelector('.gradio-container img[src=x]') === null"


def open_tab(page: Page, url: str, tab: str, job: str) -> None:
    page.goto(f"{url}#tab={tab}&job={job}")
    expect(page.get_by_role("tab", name=tab.title(), exact=True)).to_have_attribute("aria-selected", "true")
    if job:
        page.wait_for_function("id => document.querySelector('#job-id textarea, #job-id input')?.value === id", arg=job)


def look(page: Page, scheme: str, width: int) -> None:
    """Give a page that is not open yet another width, and "light" or "dark"."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]


def longest_answer(page: Page, tokens: int) -> None:
    """Set the length at which the Chat tab, which is open, cuts an answer."""
    field = page.locator("#chat-max-tokens input")
    if not field.is_visible():
        page.locator("#chat-settings button").first.click()
    field.fill(str(tokens))
    field.blur()


def until_ended(page: Page, name: str) -> None:
    """Wait until the page knows that the run of that name has ended; the newest it knows may be another one."""
    page.wait_for_function(
        "name => ['completed', 'failed'].includes(studio.state.jobs.find(job => job.name === name)?.status)",
        arg=name, timeout=300_000,
    )  # fmt: skip


def as_text(page: Page) -> None:
    """Nothing of what a model or a file said has become markup or script."""
    assert page.evaluate(PWNED)


def serious(page: Page) -> list[tuple[str, list[str]]]:
    """What axe calls serious or critical; the rule that a name contains the visible label is off by default in it."""
    options = {"resultTypes": ["violations"], "rules": {"label-content-name-mismatch": {"enabled": True}}}
    found = Axe().run(page, options=options).response["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
