"""Fields of options that need another one come and go with it, and a wrong value is said at its field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.setup.test_setup_tabs import fill, open_tab, planned

if TYPE_CHECKING:
    from tests.browser.conftest import Server


def switch(page: Page, option: str, word: str) -> None:
    page.locator(f"#f-{option.replace('.', '-')}").get_by_label(word, exact=True).check()


@pytest.mark.long
def test_a_field_comes_and_goes_with_the_one_it_needs(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    page.locator("#tab-method button.fold").last.click()
    offloading, threshold = (page.locator(f"#f-training-{name}") for name in (
        "activation_offloading", "early_stopping_threshold",
    ))  # fmt: skip
    left_out = page.locator("#tab-method .plan-left-out")
    expect(offloading).to_be_visible()
    expect(threshold).to_be_hidden()
    switch(page, "training.activation_offloading", "on")
    planned(page, "plan.errors.length === 1")  # there is no GPU
    switch(page, "training.activation_checkpointing", "off")
    expect(offloading).to_be_hidden()
    planned(page, "!plan.errors.length")
    expect(left_out).to_contain_text("Activation offloading on (needs Activation checkpointing auto or on)")
    fill(page, "training.early_stopping", "2")
    expect(threshold).to_be_visible()
    fill(page, "training.early_stopping_threshold", "0.5")
    planned(page, "plan.changed.includes('f-training-early_stopping_threshold')")
    fill(page, "training.early_stopping", "")
    expect(threshold).to_be_hidden()
    expect(left_out).to_contain_text("Early stopping threshold 0.5 (needs Early stopping patience)")
    page.locator(".yaml-show").click()
    expect(page.locator(".yaml-text")).to_contain_text("activation_checkpointing: false")
    expect(page.locator(".yaml-text")).not_to_contain_text("early_stopping_threshold: 0.5")


@pytest.mark.long
def test_fields_of_a_list_of_words_come_with_their_word(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    page.locator("#f-method-name label").filter(has=page.get_by_text("GRPO", exact=True)).click()
    planned(page, "plan.method === 'grpo' && !plan.errors.length")
    page.locator("#tab-method button.fold").first.click()
    length, pattern = page.locator("#f-method-reward_length"), page.locator("#f-method-reward_pattern")
    expect(length).to_be_visible()  # one of the demo's
    expect(pattern).to_be_hidden()
    fill(page, "method.rewards", "numeric , regex")
    expect(pattern).to_be_visible()
    expect(length).to_be_hidden()
    expect(page.locator("#tab-method .plan-left-out")).to_contain_text("Target length 6 (needs Rewards length)")


@pytest.mark.long
def test_a_wrong_value_is_said_at_its_field(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    rank = page.locator("#f-tuning-rank")
    fill(page, "tuning.rank", "2.5")
    planned(page, "plan.errors.length === 1")
    expect(rank).to_have_attribute("data-note", "A whole number is needed (it is 2.5).")
    expect(rank.locator("input")).to_have_attribute("aria-invalid", "true")
    expect(rank.locator("input")).to_have_value("2.5")
    fill(page, "tuning.rank", "8")
    planned(page, "plan.what.startsWith('LoRA r8')")
    expect(rank.locator("input")).not_to_have_attribute("aria-invalid", "true")
    assert rank.get_attribute("data-note") != "A whole number is needed (it is 2.5)."
