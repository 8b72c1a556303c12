"""What a person types and where they are stays while the page answers: the model's name, a file's options, the YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.setup.test_data_tab import write_csv
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned, upload, value

if TYPE_CHECKING:
    from tests.browser.conftest import Server

# Each reply of a handler comes later than the next letter; `late` turns it off again.
LATE = """() => { const ask = window.fetch; window.late = 400; window.fetch = async (...what) => {
  const answer = await ask(...what);
  const late = String(what[0]?.url || what[0]).includes("/gradio_api/");
  if (late) await new Promise((done) => setTimeout(done, window.late));
  return answer;
} }"""
OFFLINE = "The Hub cannot be reached. Check the network."


@pytest.mark.long
def test_no_letter_of_a_models_name_is_lost_while_replies_are_late(page: Page, server: Server) -> None:
    open_tab(page, server, "model")
    page.evaluate(LATE)
    field = page.locator("#f-model-path").locator("input, textarea").first
    field.press("Control+a")
    page.keyboard.type("some-org/some-long-model", delay=150)
    expect(page.locator("#model-facts .facts-title")).to_have_text("some-long-model", timeout=60_000)
    assert value(page, "model.path") == "some-org/some-long-model"
    page.evaluate("window.late = 0")
    page.locator("#model-cards label", has_text="SmolLM2").click()
    expect(field).to_have_value("smollm2-135m-instruct")
    planned(page, "plan.memory && !plan.errors.length")


@pytest.mark.long
def test_the_answer_of_a_search_stays_below_an_empty_list(page: Page, server: Server) -> None:
    open_tab(page, server, "model")
    page.route("**/api/models/search*", lambda route: route.fulfill(json={"models": [], "problem": OFFLINE}))
    models = page.locator("#model-browser")
    models.get_by_text("Browse models", exact=True).click()
    expect(models.locator(".model-row").first).to_be_visible(timeout=90_000)
    name, said = models.get_by_label("Find a model"), models.locator(".models-said")
    name.fill("zzzqqq")
    expect(said).to_have_text("No model of this list has that name. The Hub may have one.")
    name.press("Enter")
    expect(said).to_have_text(OFFLINE)
    name.fill("smollm")
    expect(said).to_have_text("")


@pytest.mark.long
def test_the_yaml_that_is_shown_is_that_of_the_form(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    show, text, problem = page.locator(".yaml-show"), page.locator("#yaml .yaml-text"), page.locator(".yaml-problem li")
    show.click()
    expect(text).to_contain_text("name: sft")
    page.get_by_role("combobox", name="Load a preset").click()
    page.get_by_role("option", name="demo/dpo", exact=True).click()
    expect(text).to_contain_text("name: dpo")
    expect(page.locator(".yaml-said")).to_have_text("demo/dpo loaded")
    fill(page, "training.epochs", "7")
    expect(text).to_contain_text("epochs: 7")
    fill(page, "training.learning_rate", "much")
    expect(problem).to_contain_text("'much' is not a number")
    expect(text).to_be_hidden()
    fill(page, "training.learning_rate", "0.003")
    expect(text).to_contain_text("learning_rate: 0.003")
    expect(problem).to_have_count(0)
    show.click()
    expect(text).to_be_hidden()
    fill(page, "training.epochs", "8")
    planned(page, "plan.line.includes('8 epochs')")
    expect(text).to_be_hidden()
    for _ in range(2):  # the same text once more
        show.click()
        expect(text).to_contain_text("epochs: 8")
        show.click()
        expect(text).to_be_hidden()


@pytest.mark.long
def test_a_files_options_are_filled_in_one_after_the_other(page: Page, server: Server, tmp_path: Path) -> None:
    open_tab(page, server, "data")
    upload(page, "#data-upload", write_csv(tmp_path / "mine.csv", ("wunsch", "bescheid")))
    files = page.locator("#f-data-train")
    more = files.get_by_role("button", name=re.compile("More options of .*mine.csv"))
    expect(more).to_have_attribute("aria-expanded", "true")  # no method can read its columns as they are
    mapping = files.get_by_label("Column mapping")
    prompt, completion = files.get_by_label("Column of Prompt"), files.get_by_label("Column of Completion")
    prompt.focus()
    prompt.select_option("wunsch")
    completion.focus()
    completion.select_option("bescheid")  # before the answer to the first one came
    expect(mapping).to_have_value("prompt=wunsch, completion=bescheid")
    planned(page, "!plan.errors.length && plan.line.includes('steps')")
    expect(completion).to_be_focused()

    weight, limit = files.get_by_label("Sampling weight"), files.get_by_label("Row limit")
    weight.fill("2")
    limit.click()  # which is when the weight counts
    page.keyboard.type("1")
    page.wait_for_timeout(3_000)  # the counts of the data come
    page.keyboard.type("1")
    expect(limit).to_be_focused()
    assert [weight.input_value(), limit.input_value()] == ["2", "11"]
    more.click()
    expect(weight).to_have_count(0)
    more.click()
    assert [weight.input_value(), limit.input_value()] == ["2", "11"]
    files.get_by_role("button", name=re.compile("^Remove .*mine.csv")).click()
    expect(files.locator("tbody > tr")).to_have_count(0)
