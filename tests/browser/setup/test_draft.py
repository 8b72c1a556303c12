"""The draft and the selected job are told apart, and New run asks what the draft begins with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.config.presets import load_named
from tests.browser.made import serious
from tests.browser.setup.test_setup_tabs import PLANNED, planned, value

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server


def whose(page: Page, tab: str) -> str:
    """What the first line of a tab says, once it is open."""
    page.get_by_role("tab", name=tab, exact=True).click()
    line = page.locator(f"#tab-{tab.lower()} .whose")
    expect(line).to_be_visible()
    return " ".join(line.inner_text().split())


@pytest.mark.long
def test_each_tab_says_whose_it_is(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    run = fake_run("demo")
    run.train(3)
    run.finish()
    page.goto(server.url)
    expect(page.locator("#tab-training .whose")).to_have_text(re.compile("Run demo"))
    draft = page.locator(".draft-entry")
    expect(draft).to_have_attribute("aria-current", "false")
    draft.click()
    expect(page.get_by_role("tab", name="Model", exact=True)).to_have_attribute("aria-selected", "true")
    expect(draft).to_have_attribute("aria-current", "true")
    for tab in ("Model", "Data", "Method"):
        assert whose(page, tab) == "Draft the settings of your next run"
    for tab in ("Chat", "Export"):
        assert whose(page, tab) == "Run demo"
    draft.click()
    expect(page.get_by_role("tab", name="Method", exact=True)).to_have_attribute("aria-selected", "true")
    assert serious(page) == []


@pytest.mark.long
def test_new_run_asks_what_to_begin_with(page: Page, server: Server, fake_run: Callable[..., FakeRun]) -> None:
    config = load_named("demo/kto", ["training.epochs=7"]).model_dump(mode="json")
    run = fake_run("judged", "train", config)
    run.train(3)
    run.finish()
    page.goto(f"{server.url}#tab=method")
    page.wait_for_function(PLANNED, timeout=120_000)
    page.get_by_role("tab", name="Training", exact=True).click()

    def begin(choice: str) -> None:
        page.get_by_role("button", name="New run", exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        if choice == "preset":
            page.get_by_label("From a preset").select_option("methods/dpo-lora")
            expect(page.locator("[data-new=about]")).to_contain_text(re.compile(r"\w{3,}"))
        page.locator(f"[data-new={'go' if choice == 'preset' else choice}]").click()
        expect(page.get_by_role("dialog")).to_be_hidden()

    page.get_by_role("button", name="New run", exact=True).click()
    expect(page.locator("[data-new=run]")).to_contain_text("From judged")
    expect(page.locator("[data-new=run]")).to_contain_text("LoRA · KTO")
    assert serious(page) == []
    page.get_by_role("button", name="Cancel", exact=True).click()
    begin("preset")
    expect(page.get_by_role("tab", name="Model", exact=True)).to_have_attribute("aria-selected", "true")
    planned(page, "plan.method === 'dpo' && !plan.errors.length")
    begin("run")
    planned(page, "plan.method === 'kto' && !plan.errors.length")
    page.get_by_role("tab", name="Method", exact=True).click()
    assert value(page, "training.epochs") == "7"
    begin("empty")
    planned(page, "plan.method === 'sft' && plan.errors.length === 1 && plan.errors[0].field === 'f-data-train'")
    page.get_by_role("tab", name="Method", exact=True).click()
    assert value(page, "training.epochs") == "2"
    page.locator("#tab-method .plan-start").click()
    expect(page.get_by_role("tab", name="Data", exact=True)).to_have_attribute("aria-selected", "true")
    page.wait_for_function("() => document.activeElement.closest('#f-data-train') !== null")
    expect(page.locator("#f-data-train")).to_be_in_viewport()


@pytest.mark.long
def test_a_runs_settings_are_read_and_become_the_draft(
    page: Page, server: Server, fake_run: Callable[..., FakeRun]
) -> None:
    config = load_named("demo/sft").model_dump(mode="json")
    other = {**config, "training": {**config["training"], "learning_rate": 3e-5}}
    for name, asked in (("usual", config), ("slow", other)):
        run = fake_run(name, config=asked)
        run.finish()
    page.goto(server.url)
    fold = page.locator(".run-settings")
    page.locator(".run", has_text="slow").click()
    expect(page.locator("#monitor [data-part=name]")).to_have_text("slow")
    fold.locator("summary").click()
    rate = fold.locator("tr", has=page.locator("[title='training.learning_rate']"))
    expect(rate).to_have_text("Learning rate3e-05")
    expect(rate).to_have_class("changed")
    expect(fold.locator("tr", has=page.locator("[title='training.optimizer']"))).not_to_have_class("changed")
    expect(fold.locator("[data-settings=count]")).to_have_text(re.compile(r"\d+ of \d+ differ from the default"))
    assert fold.locator("input, select, textarea").count() == 0, "a run's settings are read-only"
    assert fold.locator("[title='method.beta']").count() == 0, "options that the method does not read"
    page.locator(".run", has_text="usual").click()
    expect(rate).not_to_have_text("Learning rate3e-05")
    page.locator(".run", has_text="slow").click()
    expect(rate).to_have_text("Learning rate3e-05")
    fold.get_by_role("button", name="Use as draft", exact=True).click()
    expect(page.get_by_role("tab", name="Method", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#f-training-learning_rate input, #f-training-learning_rate textarea").first).to_have_value(
        "3e-05"
    )
