"""The Chat tab in a real browser: without a run, with hostile answers, and with the trained run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.config.jobs import ExportConfig
from studio.config.model import EMBEDDED_MODEL
from studio.jobs import JobFolder
from studio.jobs.store.request import JobRequest, write_request
from tests.browser.made import as_text, longest_answer, open_tab, serious
from tests.ui.made_jobs import SCRIPT, made_export, made_run

if TYPE_CHECKING:
    from tests.browser.conftest import Server

ANSWER_MS = 240_000  # a cold model on two busy cores
DRAWN = """script => {
  const pane = document.querySelector('#chat-left .chat-pane');
  const element = document.createElement('div');
  element.append(pane.cloneNode(true));
  document.body.append(element);
  const messages = [{role: 'user', content: script}, {role: 'assistant', content: script, note: script}];
  const props = {value: {messages}};
  window.studioChat.mount(element, props, () => {});
  const texts = [...element.querySelectorAll('.bubble-text')].map(node => node.textContent);
  const nodes = element.querySelectorAll('.chat-messages img, .chat-messages script').length;
  return {texts, nodes};
}"""
UPDATES = """() => { window.updates = {left: 0, right: 0}; for (const side of ['left', 'right'])
  new MutationObserver(() => window.updates[side]++).observe(document.querySelector(`#chat-${side} .chat-messages`),
    {subtree: true, childList: true, characterData: true}) }"""


@pytest.mark.long
def test_without_a_run_the_base_model_can_be_asked(page: Page, server: Server) -> None:
    open_tab(page, server.url, "chat", "")
    expect(page.locator("#chat-left-target input")).to_have_value("SmolLM2-135M-Instruct · base")
    expect(page.locator("#chat-right")).to_contain_text("Nothing is trained yet")
    page.locator("#chat-open-training").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")


@pytest.mark.long
def test_examples_and_system_prompt_come_from_the_run(page: Page, server: Server, run: JobFolder) -> None:
    open_tab(page, server.url, "chat", run.id)
    expect(page.locator("#chat-examples button")).to_have_count(3)
    expect(page.locator("#chat-example-0")).to_have_text(
        "Order for Helen: 5 tape measures, to be shipped to Melbourne. There is no hurry."
    )
    page.locator("#chat-settings button").first.click()
    expect(page.locator("#chat-system textarea")).to_have_value("Order to JSON.")
    assert serious(page) == []


@pytest.mark.long
def test_an_export_of_a_plain_model_is_talked_to_until_it_is_gone(
    page: Page, server: Server, leftovers: list[Path], settle: Callable[[], None]
) -> None:
    model = JobRequest("export", "smol", ExportConfig(run=EMBEDDED_MODEL, types=["q8_0"]).model_dump(mode="json"))
    leftovers.append(server.settings.jobs)
    job = made_export(server.settings.jobs, made_run(server.settings.jobs, "smol"), ("q8_0",))
    write_request(job.path, model)
    open_tab(page, server.url, "export", job.id)
    settle()
    page.get_by_role("button", name="Chat with it: smol-q8_0.gguf", exact=True).click()
    expect(page.get_by_role("tab", name="Chat", exact=True)).to_have_attribute("aria-selected", "true")
    left, right = page.locator("#chat-left-target input"), page.locator("#chat-right-target input")
    expect(right).to_have_value("smol-q8_0.gguf · GGUF")
    expect(left).to_have_value("SmolLM2-135M-Instruct · base")
    shutil.rmtree(job.exports)
    page.get_by_role("button", name="New conversation", exact=True).click()
    expect(right).to_have_value("No trained model")
    expect(page.locator(".refused")).to_have_count(0)


@pytest.mark.long
def test_script_in_an_answer_is_text(page: Page, server: Server, run: JobFolder) -> None:
    open_tab(page, server.url, "chat", run.id)
    page.wait_for_function("() => window.studioChat !== undefined")
    assert page.evaluate(DRAWN, SCRIPT) == {"texts": [SCRIPT, SCRIPT], "nodes": 0}
    page.wait_for_timeout(300)
    as_text(page)


@pytest.mark.long
def test_a_model_that_cannot_be_loaded_is_a_sentence(page: Page, server: Server, run: JobFolder) -> None:
    (run.model / "adapter_config.json").write_text("{}")
    (run.model / "adapter_model.safetensors").write_bytes(b"no weights")
    run.environment_path.write_text(json.dumps({"base_model": {"name": "gone", "path": str(run.path)}}))
    (run.path / "config.json").write_text("{}")
    open_tab(page, server.url, "chat", run.id)
    expect(page.locator("#chat-right-target input")).to_have_value("demo · tuned")
    page.locator("#chat-message textarea").fill("hello")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-right .bubble.failed .bubble-note")).not_to_be_empty(timeout=ANSWER_MS)
    expect(page.locator("#chat-send")).to_be_enabled()
    assert "Traceback" not in page.locator("#chat-right").inner_text()


@pytest.mark.long
def test_base_and_tuned_answer_side_by_side(
    page: Page, serve: Callable[[Path], Server], session_home: Path, short_run: JobFolder
) -> None:
    server = serve(session_home)
    open_tab(page, server.url, "chat", short_run.id)
    expect(page.locator("#chat-right-target input")).to_have_value(f"{short_run.request.name} · tuned")
    longest_answer(page, 48)
    page.evaluate(UPDATES)
    page.locator("#chat-example-0").click()  # which asks at once
    expect(page.locator("#chat-loaded-line")).to_contain_text("Loading the model")
    for side in ("left", "right"):
        expect(page.locator(f"#chat-{side} .bubble.it .bubble-text")).not_to_be_empty(timeout=ANSWER_MS)
    for side in ("left", "right"):
        expect(page.locator(f"#chat-{side} .chat-messages")).to_have_attribute("aria-busy", "false", timeout=ANSWER_MS)
        expect(page.locator(f"#chat-{side} .chat-speed")).to_contain_text("first token")
    updates = page.evaluate("window.updates")
    assert updates["left"] >= 5 and updates["right"] >= 5
    expect(page.locator("#chat-loaded-line")).to_contain_text("Loaded:")

    longest_answer(page, 256)
    page.locator("#chat-message textarea").fill("Tell me a very long story about a harbour and its keeper.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#chat-left .bubble.it .bubble-text").last).not_to_be_empty(timeout=ANSWER_MS)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#chat-left .chat-messages")).to_have_attribute("aria-busy", "false", timeout=5_000)
    expect(page.locator("#chat-send")).to_be_enabled()
    page.locator("#chat-unload").click()
    expect(page.locator("#chat-loaded-line")).to_contain_text("No model is loaded")
